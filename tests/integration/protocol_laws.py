"""What must hold of the tables after every step of whoever works on them; each law says what it found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from shared.db.base import Base
from shared.db.engine import transaction
from shared.db.models import Allocation, Attempt, Event, Job, Slot
from shared.domain.job import (
    FINAL_JOB_STATES,
    LIVE_ALLOCATION_STATES,
    LIVE_ATTEMPT_STATES,
    AllocationState,
    AttemptState,
    JobState,
    Outcome,
    SlotState,
)

Row = TypeVar("Row", bound=Base)
AT_WORK = frozenset({JobState.DISPATCHED, JobState.RUNNING, JobState.STOPPING})


@dataclass(frozen=True)
class Tables:
    """Everything that the protocol keeps, as of one moment."""

    jobs: dict[str, Job]
    attempts: dict[str, list[Attempt]]
    allocations: dict[str, list[Allocation]]
    slots: list[Slot]
    events: dict[str, list[Event]]

    @classmethod
    def read(cls, engine: Engine) -> Tables:
        with transaction(engine) as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            jobs = {job.id: job for job in _all(session, Job)}
            return cls(
                jobs=jobs,
                attempts=_by(_all(session, Attempt), "job_id", "number"),
                allocations=_by(_all(session, Allocation), "attempt_id", "node_rank"),
                slots=_all(session, Slot),
                events=_by(_all(session, Event), "job_id", "seq"),
            )

    def of(self, job: Job) -> list[Attempt]:
        return self.attempts.get(job.id, [])

    def broken(self) -> Iterator[str]:
        """Each breach of a law, in words."""
        for job in self.jobs.values():
            yield from self._broken_by(job)
        for attempts in self.attempts.values():
            for attempt in attempts:
                yield from self._broken_within(attempt)
        yield from self._broken_slots()

    def _broken_by(self, job: Job) -> Iterator[str]:
        attempts = self.of(job)
        live = [one for one in attempts if one.state in LIVE_ATTEMPT_STATES]
        if len(live) != (job.state in AT_WORK):
            yield f"{job.id} is {job.state} with {len(live)} live tokens"
        if live and job.state is JobState.RUNNING and live[0].state is AttemptState.OFFERED:
            yield f"{job.id} runs, and its attempt is still offered"
        if live and job.state is JobState.DISPATCHED and live[0].state is AttemptState.RUNNING:
            yield f"{job.id} is dispatched, and its attempt runs"
        if [one.number for one in attempts] != list(range(1, len(attempts) + 1)):
            yield f"{job.id} has the tries {[one.number for one in attempts]}"
        lost = sum(one.outcome is Outcome.LOST for one in attempts)
        if job.attempts_used != lost or lost > job.max_attempts:
            yield f"{job.id} lost {lost} tries, counts {job.attempts_used}, may lose {job.max_attempts}"
        if lost == job.max_attempts and job.state not in FINAL_JOB_STATES:
            yield f"{job.id} lost its last try and is {job.state}"
        yield from self._broken_history(job)

    def _broken_history(self, job: Job) -> Iterator[str]:
        events = self.events.get(job.id, [])
        if [event.seq for event in events] != list(range(1, job.n_events + 1)):
            yield f"{job.id} has the events {[event.seq for event in events]} of {job.n_events}"
        moves = [event.data for event in events if event.type == "state"]
        for before, after in pairwise(moves):
            if before["new"] != after["old"]:
                yield f"{job.id} became {before['new']} and then left {after['old']}"
        if moves and moves[-1]["new"] != job.state:
            yield f"{job.id} is {job.state}, its history says {moves[-1]['new']}"

    def _broken_within(self, attempt: Attempt) -> Iterator[str]:
        allocations = self.allocations[attempt.id]
        states = [one.state for one in allocations]
        is_live = any(state in LIVE_ALLOCATION_STATES for state in states)
        if is_live != (attempt.state in LIVE_ATTEMPT_STATES):
            yield f"{attempt.id} is {attempt.state} with its shares {states}"
        if len(allocations) != attempt.nodes:
            yield f"{attempt.id} is for {attempt.nodes} nodes and has {len(allocations)} shares"
        if attempt.state is not AttemptState.OFFERED and AllocationState.OFFERED in states:
            yield f"{attempt.id} is {attempt.state}, and a share of it is still offered"
        if attempt.claimed != sum(one.claim_id is not None for one in allocations):
            yield f"{attempt.id} counts {attempt.claimed} claims"
        has_result = attempt.state is AttemptState.ENDED and allocations[0].outcome is Outcome.SUCCEEDED
        if has_result and attempt.outcome is not Outcome.SUCCEEDED:
            yield f"{attempt.id} ended as {attempt.outcome}, and its result was there"
        if attempt.outcome is Outcome.STOPPED and allocations[0].error and not attempt.error:
            yield f"{attempt.id} ended in order, and of its first node it is said: {allocations[0].error}"
        for one in allocations:
            if (one.state is AllocationState.CLAIMED) != (one.lease_expires_at is not None):
                yield f"{one.id} is {one.state} with a lease until {one.lease_expires_at}"

    def _broken_slots(self) -> Iterator[str]:
        shares = {one.id: one for shares in self.allocations.values() for one in shares}
        held = {(slot.node_id, slot.index): slot.allocation_id for slot in self.slots if slot.allocation_id}
        wanted = {
            (share.node_id, index): share.id
            for share in shares.values()
            if share.state in LIVE_ALLOCATION_STATES
            for index in share.slots
        }
        if held != wanted:
            yield f"slots are held as {held}, and should be as {wanted}"
        for slot in self.slots:
            if (slot.state is SlotState.HELD) != (slot.allocation_id is not None):
                yield f"slot {slot.index} of {slot.node_id} is {slot.state} by {slot.allocation_id}"


def word_of_the_end(job: Job) -> tuple[Any, ...] | None:
    """All that must never change of a job that is over; None while it is not."""
    if job.state not in FINAL_JOB_STATES:
        return None
    return job.state, job.result, job.error, job.finished_at, job.attempts_used, job.n_events


def _all(session: Session, table: type[Row]) -> list[Row]:
    return list(session.scalars(select(table)))


def _by(rows: Iterable[Row], key: str, order: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: getattr(row, order)):
        found[getattr(row, key)].append(row)
    return found
