"""The verdict: what was promised, held against what the ranks wrote and what the API says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import testimony
from harness.injector import Injected
from harness.testimony import AttemptLog, RankLog
from harness.workload import Ended, Followed


@dataclass
class Verdict:
    """Everything that was found wrong, by the promise that it breaks."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    over_quota: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def holds(self, *, may_overlap: bool = False) -> bool:
        """Whether nothing was found; an overlap is none where the promise excepts it."""
        broken = self.lost or self.doubled or self.over_quota or self.wrong
        return not (broken or (self.overlapping and not may_overlap))

    def __str__(self) -> str:
        found = [
            f"{kind.replace('_', ' ')}: {what}"
            for kind in ("lost", "doubled", "overlapping", "over_quota", "wrong")
            for what in getattr(self, kind)
        ]
        return "\n".join(found) or "everything that was promised held"


def judge(
    followed: Sequence[Followed],
    ended: Mapping[str, Ended],
    references: Mapping[str, str],
    logs: Sequence[RankLog],
    last_step: int,
) -> Verdict:
    """`references` has each variety's weights as an undisturbed run made them; `ended` is by job."""
    verdict = Verdict()
    for job in followed:
        one = ended[job.id]
        _check_job(verdict, job, one, references[job.variety])
        _check_events(verdict, job, one)
    ours = [log for log in logs if log.job in ended]
    attempts = testimony.attempts_of(ours)
    verdict.overlapping += testimony.overlaps_of_jobs(attempts) + testimony.overlaps_of_slots(logs)
    verdict.wrong += testimony.faulty_starts(attempts) + testimony.faulty_steps(attempts, last_step)
    _check_accounts(verdict, attempts, ended)
    return verdict


def check_leftovers(verdict: Verdict, trainers: Sequence[int], nodes: Iterable[Mapping[str, Any]]) -> None:
    """After the last job: no trainer's process, and no slot that is not free."""
    if trainers:
        verdict.wrong.append(f"trainer processes are left: {trainers}")
    for node in nodes:
        held = {slot["index"]: slot["state"] for slot in node["slots"] if slot["state"] != "free"}
        if held:
            verdict.wrong.append(f"{node['id']} has slots that are not free: {held}")


def check_faults(verdict: Verdict, done: Iterable[Injected]) -> None:
    """What was below a killed process was gone in time."""
    verdict.wrong += [str(one) for one in done if one.left]


def _check_job(verdict: Verdict, job: Followed, one: Ended, reference: str) -> None:
    if one.job.status != "succeeded":
        verdict.lost.append(f"{job.id} ({job.variety}) {one.job.status}: {one.job.why_failed}")
        return
    won = [attempt["id"] for attempt in one.job.raw["attempts"] if attempt["outcome"] == "succeeded"]
    ends = [event for event in one.events if event.data.get("new") == "succeeded"]
    if len(won) != 1 or len(ends) != 1 or len(set(one.artifacts)) < len(one.artifacts):
        verdict.doubled.append(f"{job.id}: won by {won}, {len(ends)} ends, artifacts {one.artifacts}")
    if one.weights != reference:
        verdict.wrong.append(f"{job.id} ({job.variety}) has other weights than the undisturbed run")


def _check_events(verdict: Verdict, job: Followed, one: Ended) -> None:
    numbers = [event.seq for event in one.events]
    if numbers != list(range(1, len(numbers) + 1)):
        verdict.wrong.append(f"{job.id}: events are numbered {numbers}")
    heard = [event.seq for _, event in job.heard]
    if job.failure is None and heard != numbers:
        verdict.wrong.append(f"{job.id}: its follower heard events {heard} of {numbers}")
    if job.failure is not None:
        verdict.wrong.append(f"{job.id}: its follower gave up: {job.failure}")


def _check_accounts(verdict: Verdict, attempts: Sequence[AttemptLog], ended: Mapping[str, Ended]) -> None:
    """Who computed is known to the service, and only who computed to the end has won.

    Of a gang that is the node with rank 0: once it has the result, a peer may die before it could say so.
    """
    for attempt in attempts:
        known = {one["id"]: one for one in ended[attempt.job].job.raw["attempts"]}
        if attempt.attempt not in known:
            verdict.wrong.append(f"{attempt.job}: nobody knows of {attempt.attempt}, which computed")
            continue
        one = known[attempt.attempt]
        on_first = len(one["nodes"][0]["slots"])
        ended_well = all(log.ended_well for log in attempt.ranks if log.rank < on_first)
        if one["outcome"] == "succeeded" and not ended_well:
            verdict.wrong.append(f"{attempt.job}: {attempt.attempt} won although a rank did not end well")
