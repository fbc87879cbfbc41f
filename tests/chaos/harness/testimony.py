"""What the ranks wrote down, put together: who computed what, when, and in which order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RankLog:
    """One process's own account. Times are seconds of the boot clock; `steps` are (time, number)."""

    job: str
    attempt: str
    rank: int
    pid: int
    slot: str
    first: float
    last: float
    steps: tuple[tuple[float, int], ...]
    ended_well: bool


@dataclass(frozen=True)
class AttemptLog:
    """All ranks of one attempt: from the first line of any to the last line of any."""

    job: str
    attempt: str
    ranks: tuple[RankLog, ...]

    @property
    def first(self) -> float:
        return min(rank.first for rank in self.ranks)

    @property
    def last(self) -> float:
        return max(rank.last for rank in self.ranks)

    @property
    def first_step(self) -> float | None:
        """When the first step of any rank was done; None where none was."""
        return min((rank.steps[0][0] for rank in self.ranks if rank.steps), default=None)


def read_logs(folder: Path) -> list[RankLog]:
    """Every process's account. A file without a line is of a process that was killed before its first."""
    return [_read(lines) for path in sorted(folder.glob("*.jsonl")) if (lines := _lines(path))]


def attempts_of(logs: Iterable[RankLog]) -> list[AttemptLog]:
    """The attempts, in the order in which they began to compute."""
    ranks: dict[tuple[str, str], list[RankLog]] = {}
    for log in logs:
        ranks.setdefault((log.job, log.attempt), []).append(log)
    found = [AttemptLog(job, attempt, tuple(of_one)) for (job, attempt), of_one in ranks.items()]
    return sorted(found, key=lambda attempt: attempt.first)


def overlaps_of_jobs(attempts: Sequence[AttemptLog]) -> list[str]:
    """Two attempts of one job that computed at the same time."""
    return _overlaps([(one.job, one.attempt, one.first, one.last) for one in attempts])


def overlaps_of_slots(logs: Sequence[RankLog]) -> list[str]:
    """Two processes of different attempts that computed on one slot at the same time."""
    return _overlaps([(one.slot, f"{one.attempt} pid {one.pid}", one.first, one.last) for one in logs])


def _overlaps(spans: Iterable[tuple[str, str, float, float]]) -> list[str]:
    found, latest = [], dict[str, tuple[str, float]]()
    for where, who, first, last in sorted(spans, key=lambda span: span[2]):
        before, until = latest.get(where, ("", -math.inf))
        if first <= until:
            found.append(f"{where}: {who} began {until - first:.3f} s before the end of {before}")
        if last > until:
            latest[where] = (who, last)
    return found


def faulty_starts(attempts: Sequence[AttemptLog]) -> list[str]:
    """Attempts in which one rank was started more than once."""
    found = []
    for attempt in attempts:
        numbers = [rank.rank for rank in attempt.ranks]
        if len(set(numbers)) < len(numbers):
            found.append(f"{attempt.job} {attempt.attempt}: starts of ranks {sorted(numbers)}")
    return found


def faulty_steps(attempts: Sequence[AttemptLog], last_step: int) -> list[str]:
    """Steps out of order within a process, left out between attempts, or not reached in the end."""
    found, reached = [], dict[str, int]()
    for attempt in attempts:
        for rank in attempt.ranks:
            numbers = [number for _, number in rank.steps]
            if not numbers:
                continue
            if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                found.append(f"{attempt.job} {attempt.attempt} rank {rank.rank}: steps {numbers}")
            if numbers[0] > reached.get(attempt.job, 0) + 1:
                found.append(f"{attempt.job} {attempt.attempt} begins with step {numbers[0]}, none before it")
        done = max((rank.steps[-1][1] for rank in attempt.ranks if rank.steps), default=0)
        reached[attempt.job] = max(done, reached.get(attempt.job, 0))
    return [*found, *(f"{job} ended at step {n}" for job, n in reached.items() if n != last_step)]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; a process may be killed within its last."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _read(lines: Sequence[dict[str, Any]]) -> RankLog:
    start = lines[0]
    return RankLog(
        job=start["job"],
        attempt=start["attempt"],
        rank=start["rank"],
        pid=start["pid"],
        slot=start["slot"],
        first=start["t"],
        last=lines[-1]["t"],
        steps=tuple((line["t"], line["step"]) for line in lines if line["what"] == "step"),
        ended_well=lines[-1]["what"] == "end" and lines[-1]["status"] == 0,
    )
