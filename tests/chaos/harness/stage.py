"""A stack to act on: references on the quiet stack, then jobs and faults together, then the verdict."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from harness import testimony
from harness.causes import losses, unexplained
from harness.checker import Verdict, check_faults, check_leftovers, judge
from harness.cluster import Cluster, running_cluster
from harness.injections import keep_snapshot
from harness.injector import GONE_WITHIN_S, Injected, Injector, boottime
from harness.plan import Fault
from harness.quota_watch import Looks, QuotaWatch
from harness.recovery import Recovery, recoveries
from harness.targets import trainers
from harness.teams import OWED, Owed
from harness.testimony import AttemptLog
from harness.workload import Ended, Followed, Workload
from scans import write_digits

STEPS_PER_EPOCH = 12  # 192 pictures to train on, 16 at a time
_N_PICTURES = 240
_LOOK_AGAIN_S = 0.05
_SLOTS_FREE_WITHIN_S = 60.0


class TookTooLong(RuntimeError):
    """The jobs were not over in time: a job that never ends is a lost one."""


@dataclass(frozen=True)
class Order:
    """Some jobs of one length, by variety. Faults begin once `computing` attempts have made a step.

    The last `n_late` jobs are submitted while the faults go on. `teams`: whose each job is, with the quotas
    of `teams.py`; left out, all are the first admin's, and nobody has a quota.
    """

    varieties: Sequence[str]
    n_epochs: int
    computing: int = 0
    n_late: int = 0
    limit_s: float = 600.0
    teams: Sequence[str] = ()

    @property
    def jobs(self) -> list[tuple[str, str | None]]:
        """Variety and team of each job."""
        return list(zip_longest(self.varieties, self.teams))

    @property
    def owed(self) -> Mapping[str, Owed]:
        return OWED if self.teams else {}


@dataclass
class Report:
    """What came of an act. `attempts` counts outcomes; `seconds` are those of the act alone.

    `looks`: at what teams held.
    """

    order: Order
    scale: float
    verdict: Verdict
    faults: list[Injected]
    recoveries: list[Recovery]
    ended: dict[str, Ended]
    logs: list[AttemptLog]
    looks: Looks = field(default_factory=Looks)
    seconds: float = 0.0

    @property
    def injected(self) -> list[Injected]:
        return [one for one in self.faults if one.injection is not None]

    @property
    def attempts(self) -> Counter[str]:
        return Counter(str(raw["outcome"]) for one in self.ended.values() for raw in one.job.raw["attempts"])

    @property
    def preempted(self) -> int:
        """How often a job was asked to hand back what it had borrowed."""
        events = [event for one in self.ended.values() for event in one.events]
        return sum(event.data.get("stop_reason") == "preempt" for event in events)


@dataclass
class Stage:
    """A running stack with its data, and what undisturbed runs made of each job: by variety and epochs."""

    cluster: Cluster
    scale: float
    say: Callable[[str], None]
    _workload: Workload
    _references: dict[tuple[str, int], str] = field(default_factory=dict)

    def act(self, order: Order, plan: Sequence[Fault]) -> Report:
        """Submit the jobs, carry the plan out, and judge. Raises TookTooLong."""
        references = self._undisturbed(order)
        self._workload.found(order.owed)
        began, first = time.monotonic(), len(self._workload.jobs)
        with QuotaWatch(self.cluster.database_url, order.owed) as watch:
            faults = self._perform(order, plan)
            report = self._judged(order, self._workload.jobs[first:], references, faults)
        report.looks = watch.looks
        report.verdict.over_quota += [f"{what} ({n} times)" for what, n in watch.looks.over.items()]
        report.seconds = time.monotonic() - began
        return report

    def _perform(self, order: Order, plan: Sequence[Fault]) -> list[Injected]:
        """The jobs and the faults, until all of them are over."""
        first, n_early = len(self._workload.jobs), len(order.jobs) - order.n_late
        for name, team in order.jobs[:n_early]:
            self._workload.submit(name, order.n_epochs, team)
        early = self._workload.jobs[first:]
        self._until(lambda: self._n_computing(early) >= order.computing, order.limit_s, "first steps")
        keep_snapshot(self.cluster)
        if order.n_late:
            every_s = plan[-1].at * self.scale / (order.n_late + 1) if plan else 0.0
            self._workload.submit_later(order.jobs[n_early:], order.n_epochs, every_s)
        injector = Injector(self.cluster, plan, self.scale)
        self._carry_out(injector, order.limit_s)
        return injector.done

    def _undisturbed(self, order: Order) -> dict[str, str]:
        """Each variety's weights as a run makes them that no fault touches."""
        wanted = {(name, order.n_epochs) for name in order.varieties}
        jobs = {key: self._workload.submit(*key) for key in wanted - self._references.keys()}
        self._until(lambda: not self._workload.open, order.limit_s, "the undisturbed runs")
        for key, job in jobs.items():
            ended = self._workload.ended(job)
            if ended.weights is None:
                raise RuntimeError(f"an undisturbed run {ended.job.status}: {ended.job.why_failed}")
            self._references[key] = ended.weights
        return {name: self._references[name, order.n_epochs] for name in order.varieties}

    def _n_computing(self, followed: Sequence[Followed]) -> int:
        ours = {job.id for job in followed}
        logs = testimony.attempts_of(testimony.read_logs(self.cluster.witnesses))
        return sum(log.job in ours and log.first_step is not None for log in logs)

    def _carry_out(self, injector: Injector, limit_s: float) -> None:
        told = 0

        def is_over() -> bool:
            nonlocal told
            injector.look()
            for done in injector.done[told:]:
                self.say(f"{boottime() - injector.began:7.1f} s  {done}")
            told = len(injector.done)
            if not self._workload.open:
                injector.give_up()
            return not self._workload.open and injector.is_over

        self._until(is_over, limit_s, "the end of the jobs")

    def _until(self, is_over: Callable[[], bool], within_s: float, what: str) -> None:
        give_up_at = time.monotonic() + within_s
        while not is_over():
            self.cluster.keeper.look()
            if time.monotonic() > give_up_at:
                still = ", ".join(self._workload.open) or "none"
                raise TookTooLong(
                    f"waited {within_s:g} s in vain for {what}; jobs that are not over: {still}"
                )
            time.sleep(_LOOK_AGAIN_S)

    def _judged(
        self, order: Order, followed: list[Followed], references: dict[str, str], faults: list[Injected]
    ) -> Report:
        left = self._trainers_left()
        self._wait_for_free_slots()
        ended = {job.id: self._workload.ended(job) for job in followed}
        logs = testimony.read_logs(self.cluster.witnesses)
        verdict = judge(followed, ended, references, logs, order.n_epochs * STEPS_PER_EPOCH)
        check_leftovers(verdict, left, self._workload.nodes())
        check_faults(verdict, faults)
        verdict.doubled += [
            f"{job} was made by a submission made again" for job in self._workload.strangers()
        ]
        attempts = [log for log in testimony.attempts_of(logs) if log.job in ended]
        lost = losses(followed, ended, faults, self.scale)
        verdict.wrong += unexplained(lost)
        found = recoveries(followed, ended, attempts, lost, faults)
        self._write_down(ended.values())
        return Report(order, self.scale, verdict, faults, found, ended, attempts)

    def _write_down(self, ended: Iterable[Ended]) -> None:
        """For whoever looks into a broken promise: what the API said at the end, beside the logs."""
        with (self.cluster.folder.root / "ended.jsonl").open("a", encoding="utf-8") as file:
            for one in ended:
                events = [dict(event.raw) for event in one.events]
                attempts = one.job.raw["attempts"]
                file.write(json.dumps({"id": one.job.id, "attempts": attempts, "events": events}) + "\n")

    def _trainers_left(self) -> list[int]:
        give_up_at = time.monotonic() + GONE_WITHIN_S
        while (left := [one.pid for one in trainers(self.cluster)]) and time.monotonic() < give_up_at:
            self.cluster.keeper.wait(_LOOK_AGAIN_S)
        return left

    def _wait_for_free_slots(self) -> None:
        give_up_at = time.monotonic() + _SLOTS_FREE_WITHIN_S
        while time.monotonic() < give_up_at:
            slots = [slot for node in self._workload.nodes() for slot in node["slots"]]
            if all(slot["state"] == "free" for slot in slots):
                return
            self.cluster.keeper.wait(0.5)


@contextmanager
def standing(
    root: Path, say: Callable[[str], None], *, scale: float, n_nodes: int = 4, step_s: float = 0.04
) -> Iterator[Stage]:
    """A stage in the folder `root`, which must be new or empty."""
    began = time.monotonic()
    with running_cluster(root, n_nodes=n_nodes, time_scale=scale, step_s=step_s) as cluster:
        say(f"the stack stands at {cluster.url} after {time.monotonic() - began:.0f} s; logs: {root}")
        pictures = write_digits(root / "scans", 0, _N_PICTURES)
        yield Stage(cluster, scale, say, Workload(cluster.url, cluster.api_key, pictures))
