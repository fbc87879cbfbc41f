"""Every state of job, attempt, allocation and slot: what it means, who moves it on, and to where.

One setter, `transition`, is the only code that assigns a state; it raises on a move that is not in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from shared.domain.errors import IllegalTransition

State = TypeVar("State", bound=StrEnum)


class JobState(StrEnum):
    """The life of a job. The word in brackets moves the job out of that state."""

    VALIDATING_FILES = "validating_files"  # its inputs are not all there yet [api, reconciler]
    QUEUED = "queued"  # waits for slots [scheduler; api on cancel and pause]
    DISPATCHED = (
        "dispatched"  # an attempt holds slots, not all of its nodes have claimed [worker, reconciler]
    )
    RUNNING = "running"  # every node of the attempt has claimed [worker, reconciler, api]
    STOPPING = "stopping"  # asked to stop, see StopReason; the trainer is leaving [worker, reconciler]
    PAUSED = "paused"  # holds no slots, goes on from its checkpoint when resumed [api]
    SUCCEEDED = "succeeded"  # the result is stored
    FAILED = "failed"  # `error` says why
    CANCELLED = "cancelled"  # a person ended it


class StopReason(StrEnum):
    """Why a job is `stopping`, and so where it goes next."""

    CANCEL = "cancel"  # -> cancelled
    PAUSE = "pause"  # -> paused
    PREEMPT = "preempt"  # -> queued
    DRAIN = "drain"  # -> queued


class AttemptState(StrEnum):
    """One try of a job."""

    OFFERED = "offered"  # slots are held, not all nodes have claimed [worker, reconciler]
    RUNNING = "running"  # every node has claimed; its token may write [worker, reconciler]
    ENDING = "ending"  # one of its allocations failed or expired; the others are leaving [worker, reconciler]
    ENDED = "ended"  # all allocations are over; `outcome` says how


class AllocationState(StrEnum):
    """One node's share of an attempt."""

    OFFERED = "offered"  # published to the node, not yet answered [worker, reconciler]
    CLAIMED = "claimed"  # the node holds the lease [worker, reconciler]
    ENDED = "ended"  # the node said how it ended
    EXPIRED = "expired"  # the lease ran out, or the node answered no offer


class SlotState(StrEnum):
    """A GPU, or one CPU process."""

    FREE = "free"  # may be given out [scheduler]
    HELD = "held"  # belongs to an allocation [worker, reconciler]
    DIRTY = "dirty"  # its allocation is gone, its node has not said that no process is left [worker]


class NodeState(StrEnum):
    """A host with slots."""

    READY = "ready"
    SUSPECT = "suspect"  # let an offer pass unanswered: gets none until it is heard again
    DRAINING = "draining"  # an operator or its own worker takes it away: its jobs leave, it gets no more
    LOST = "lost"  # not heard for longer than a lease


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the user's error: not tried again
    LOST = "lost"  # a process, a worker or a node died: tried again, uses up an attempt
    STOPPED = "stopped"  # asked to stop: uses up no attempt
    INCOMPLETE = "incomplete"  # the offer or the gang was not answered: uses up no attempt


_J, _A, _L, _S = JobState, AttemptState, AllocationState, SlotState

JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _J.VALIDATING_FILES: frozenset({_J.QUEUED, _J.PAUSED, _J.FAILED, _J.CANCELLED}),
    _J.QUEUED: frozenset({_J.DISPATCHED, _J.PAUSED, _J.FAILED, _J.CANCELLED}),
    _J.DISPATCHED: frozenset({_J.RUNNING, _J.STOPPING, _J.QUEUED, _J.FAILED, _J.CANCELLED, _J.PAUSED}),
    _J.RUNNING: frozenset({_J.STOPPING, _J.QUEUED, _J.SUCCEEDED, _J.FAILED}),
    # A result that was ready before the stop was seen still counts.
    _J.STOPPING: frozenset({_J.CANCELLED, _J.PAUSED, _J.QUEUED, _J.SUCCEEDED, _J.FAILED}),
    _J.PAUSED: frozenset({_J.QUEUED, _J.VALIDATING_FILES, _J.CANCELLED}),
    _J.SUCCEEDED: frozenset(),
    _J.FAILED: frozenset(),
    _J.CANCELLED: frozenset(),
}
ATTEMPT_TRANSITIONS: Mapping[AttemptState, frozenset[AttemptState]] = {
    _A.OFFERED: frozenset({_A.RUNNING, _A.ENDING, _A.ENDED}),
    _A.RUNNING: frozenset({_A.ENDING, _A.ENDED}),
    _A.ENDING: frozenset({_A.ENDED}),
    _A.ENDED: frozenset(),
}
ALLOCATION_TRANSITIONS: Mapping[AllocationState, frozenset[AllocationState]] = {
    _L.OFFERED: frozenset({_L.CLAIMED, _L.ENDED, _L.EXPIRED}),
    _L.CLAIMED: frozenset({_L.ENDED, _L.EXPIRED}),
    _L.ENDED: frozenset(),
    _L.EXPIRED: frozenset(),
}
SLOT_TRANSITIONS: Mapping[SlotState, frozenset[SlotState]] = {
    _S.FREE: frozenset({_S.HELD}),
    _S.HELD: frozenset({_S.FREE, _S.DIRTY}),
    _S.DIRTY: frozenset({_S.FREE}),
}
_TABLES: Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    JobState: JOB_TRANSITIONS,
    AttemptState: ATTEMPT_TRANSITIONS,
    AllocationState: ALLOCATION_TRANSITIONS,
    SlotState: SLOT_TRANSITIONS,
}

FINAL_JOB_STATES = frozenset(state for state, after in JOB_TRANSITIONS.items() if not after)
LIVE_ATTEMPT_STATES = frozenset({AttemptState.OFFERED, AttemptState.RUNNING, AttemptState.ENDING})
LIVE_ALLOCATION_STATES = frozenset({AllocationState.OFFERED, AllocationState.CLAIMED})

AFTER_STOP: Mapping[StopReason, JobState] = {
    StopReason.CANCEL: JobState.CANCELLED,
    StopReason.PAUSE: JobState.PAUSED,
    StopReason.PREEMPT: JobState.QUEUED,
    StopReason.DRAIN: JobState.QUEUED,
}
STOP_GRACE_S: Mapping[StopReason, float] = {
    StopReason.CANCEL: 30.0,
    StopReason.PAUSE: 300.0,
    StopReason.PREEMPT: 300.0,
    StopReason.DRAIN: 300.0,
}


# A preempted job is not placed again for so long: else, first in the queue, it would take back the slots that
# others were to have.
YIELD_S = 30.0


class Stateful(Protocol[State]):
    """Anything with a state: a job, attempt, allocation or slot row."""

    state: State


def transition(row: Stateful[State], to: State) -> State:
    """Move `row` to `to` and return the state it left. Raises IllegalTransition on any other move."""
    old = row.state
    after = _TABLES[type(to)][old]
    if to not in after:
        allowed = ", ".join(sorted(after)) or "nothing, it is final"
        raise IllegalTransition(f"{type(to).__name__} {old} -> {to} is not allowed; from {old}: {allowed}")
    row.state = to
    return old


def openai_status(state: JobState) -> str:
    """The status that clients of OpenAI's shape know; the finer state is shown as `phase`."""
    shown = {JobState.DISPATCHED: "queued", JobState.STOPPING: "running"}
    return shown.get(state, str(state))
