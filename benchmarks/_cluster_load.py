"""The clusters and the jobs of a simulation: read from a trace's files, or drawn from a seed.

Traces name no teams. Each job belongs to one of some teams by Zipf's law: the k-th team sends 1/k as many
jobs as the first. Every fifth team, the first among them, has the weight 2, all others 1.
"""

from __future__ import annotations

import csv
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_GAP_S = 3600.0
_NODE_COLUMNS = (("sn", "model", "gpu"), ("node_name", "gpu_model", "gpu_capacity_num"))
_TASK_COLUMNS = ("name", "num_gpu", "gpu_spec", "qos", "creation_time", "scheduled_time", "deletion_time")
_SIZES = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (2, 8), (4, 8))
_HOW_MANY = (750, 100, 70, 40, 15, 15, 10)
_SPREAD = 1.2
_URGENT_SHARE = 0.2
_BEST_EFFORT = "BE"


@dataclass(frozen=True)
class Host:
    id: str
    accelerator: str
    slots: int


@dataclass(frozen=True)
class Job:
    """A job as it is submitted. `lasts_s`: how long it holds its slots in all.

    `devices`: on each of its nodes, of which a gang has several.
    """

    id: str
    team: str
    submitted_at: float
    devices: int
    lasts_s: float
    accelerator: str = "cuda"
    priority: int = 0
    nodes: int = 1

    @property
    def slots(self) -> int:
        """On all of its nodes together."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class Task:
    """What a trace says of one task; times in seconds. `lasts_s` is None where it never ran."""

    devices: int
    accelerator: str
    created_at: float
    lasts_s: float | None
    priority: int


@dataclass(frozen=True)
class Wanted:
    """`load`: what is asked for of all slots, 1 being all of them from the first second to `until_s`."""

    teams: Mapping[str, float]
    """Team -> weight, the one with the most jobs first."""
    load: float
    until_s: float
    seed: int
    zipf: float = 1.0


def teams_of(n_teams: int) -> dict[str, float]:
    return {f"team-{rank:02}": 2.0 if rank % 5 == 0 else 1.0 for rank in range(n_teams)}


def slots_of(hosts: Sequence[Host]) -> int:
    return sum(host.slots for host in hosts)


def read_hosts(path: Path) -> list[Host]:
    """The nodes with GPUs. Raises ValueError where the columns are not those of either trace."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        named = rows.fieldnames or ()
        columns = next((known for known in _NODE_COLUMNS if set(known) <= set(named)), None)
        if columns is None:
            raise ValueError(
                f"{path}: has the columns {', '.join(named)}; wanted are "
                + ", or ".join(", ".join(known) for known in _NODE_COLUMNS)
            )
        id, model, gpus = columns
        hosts = [Host(row[id], row[model], int(row[gpus])) for row in rows if int(row[gpus]) > 0]
    if not hosts:
        raise ValueError(f"{path}: no node in it has a GPU")
    return hosts


def read_tasks(path: Path) -> list[Task]:
    """The tasks that ask for GPUs, in the order of their creation. A part of a GPU counts as a whole one."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        missing = sorted(set(_TASK_COLUMNS) - set(rows.fieldnames or ()))
        if missing:
            raise ValueError(f"{path}: lacks the columns {', '.join(missing)}")
        tasks = [_task(row) for row in rows if int(row["num_gpu"]) > 0]
    if not any(task.lasts_s for task in tasks):
        raise ValueError(f"{path}: no task in it asked for GPUs and ran")
    return sorted(tasks, key=lambda task: task.created_at)


def replayed(tasks: Sequence[Task], n_slots: int, wanted: Wanted) -> list[Job]:
    """The trace's tasks, again and again in their order, as fast as makes the wanted load.

    Of the pauses between two tasks only an hour is kept, and time is squeezed; run times stay as they were.
    A task that never ran is given the run time of one that did.
    """
    chance = random.Random(wanted.seed)
    ran = [task.lasts_s for task in tasks if task.lasts_s]
    known = [task.lasts_s or chance.choice(ran) for task in tasks]
    asked = sum(
        task.devices * min(lasts_s, wanted.until_s) for task, lasts_s in zip(tasks, known, strict=True)
    )
    times = wanted.load * n_slots * wanted.until_s / asked
    at, one_replay_s = _without_long_gaps(tasks), wanted.until_s / times
    teams = _drawn_teams(wanted, chance)
    jobs: list[Job] = []
    for replay in range(math.ceil(times)):
        for task, when, lasts_s in zip(tasks, at, known, strict=True):
            submitted_at = (replay + when) * one_replay_s
            if submitted_at < wanted.until_s:
                id, team = f"job-{len(jobs):06}", next(teams)
                jobs.append(
                    Job(id, team, submitted_at, task.devices, lasts_s, task.accelerator, task.priority)
                )
    return jobs


def generated(n_jobs: int, n_slots: int, wanted: Wanted) -> list[Job]:
    """Jobs drawn from a seed: Poisson arrivals, log-normal run times, 1 to 8 GPUs on 1 to 4 nodes.

    One job in 25 is a gang of 2 or 4 nodes, which together ask for three tenths of all GPUs. The mean run
    time is what makes the wanted load; run times spread as in production, with a mean of twice the median. A
    fifth of the jobs is urgent (priority 5).
    """
    chance = random.Random(wanted.seed)
    at = sorted(chance.random() * wanted.until_s for _ in range(n_jobs))
    sizes = chance.choices(_SIZES, _HOW_MANY, k=n_jobs)
    asked = sum(nodes * devices for nodes, devices in sizes)
    mean_s = wanted.load * n_slots * wanted.until_s / asked
    median_s = mean_s / math.exp(_SPREAD**2 / 2)
    teams = _drawn_teams(wanted, chance)
    return [
        Job(
            id=f"job-{number:06}",
            team=next(teams),
            submitted_at=submitted_at,
            devices=devices,
            lasts_s=median_s * math.exp(chance.gauss(0.0, _SPREAD)),
            priority=5 if chance.random() < _URGENT_SHARE else 0,
            nodes=nodes,
        )
        for number, (submitted_at, (nodes, devices)) in enumerate(zip(at, sizes, strict=True))
    ]


def apportioned(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole slots for each, by weight, that add up to the total (largest remainders)."""
    in_all = sum(weights.values())
    exact = {name: total * weight / in_all for name, weight in weights.items()}
    parts = {name: int(part) for name, part in exact.items()}
    by_rest = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_rest[: total - sum(parts.values())]:
        parts[name] += 1
    return parts


def sizes_by_accelerator(hosts: Sequence[Host]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for host in hosts:
        sizes[host.accelerator] += host.slots
    return sizes


def _task(row: Mapping[str, str]) -> Task:
    if "|" in row["gpu_spec"]:
        raise ValueError(
            f"task {row['name']} asks for {row['gpu_spec']}: a job may name one GPU model, or none"
        )
    began, ended = row["scheduled_time"], row["deletion_time"]
    lasts_s = float(ended) - float(began) if began and ended else None
    return Task(
        devices=int(row["num_gpu"]),
        accelerator=row["gpu_spec"] or "cuda",
        created_at=float(row["creation_time"]),
        lasts_s=max(1.0, lasts_s) if lasts_s is not None else None,
        priority=0 if row["qos"] == _BEST_EFFORT else 5,
    )


def _without_long_gaps(tasks: Sequence[Task]) -> list[float]:
    """When each task comes, as a part of one replay, from 0 to just below 1."""
    at, last = [0.0], tasks[0].created_at
    for task in tasks[1:]:
        at.append(at[-1] + min(LONGEST_GAP_S, task.created_at - last))
        last = task.created_at
    whole = at[-1] + LONGEST_GAP_S
    return [when / whole for when in at]


def _drawn_teams(wanted: Wanted, chance: random.Random) -> Iterator[str]:
    names = list(wanted.teams)
    often = [1 / rank**wanted.zipf for rank in range(1, len(names) + 1)]
    while True:
        yield from chance.choices(names, often, k=1000)
