"""What tells a waiting job its place and its start: the whole queue, and the slots with what holds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, and_, cast, func, select
from sqlalchemy.orm import Session

from shared.db.clock import now
from shared.db.held_slots import load_running
from shared.db.models import Allocation, Attempt, Job, NodeRow, Slot
from shared.db.past_usage import PastUsage
from shared.db.placement import load_nodes, load_queue
from shared.db.quotas import load_shares
from shared.domain.cluster import Node
from shared.domain.job import STOP_GRACE_S, JobState, NodeState, SlotState, StopReason
from shared.domain.queue_order import in_order
from shared.domain.start_estimate import Ahead, NodeSlots, estimate_starts
from shared.domain.time_left import NOW, UNKNOWN, Span, Told, leaving, once_started, running


@dataclass(frozen=True)
class Turn:
    """A waiting job's place in the queue of the whole cluster, counted from 1, and when it may start.

    `start` is in seconds from `Forecast.made_at`; None where no node there is could run it.
    """

    job_id: str
    position: int
    start: Span | None


@dataclass(frozen=True)
class Forecast:
    """Every waiting job's turn, the next one first; `made_at` in Unix seconds."""

    made_at: float
    turns: list[Turn]

    def of(self, job_id: str) -> Turn | None:
        """The job's turn; None where it does not wait for slots."""
        return next((turn for turn in self.turns if turn.job_id == job_id), None)


@dataclass(frozen=True)
class Slots:
    """The slots of an accelerator. `away`: free, on a node that is given no work just now.

    `unhealthy`: free, and their GPU is not fit for work.
    """

    accelerator: str
    n_nodes: int
    free: int
    held: int
    dirty: int
    away: int
    unhealthy: int


def forecast(session: Session, past: PastUsage, *, heard_within_s: float) -> Forecast:
    """Where every waiting job of every team stands. For whom it may be told is for the caller to see to."""
    made_at = now(session).timestamp()
    holds = _holds_once_started(session, made_at)
    occupied = _nodes(session, made_at, heard_within_s=heard_within_s)
    waits = load_queue(session)
    ordered = in_order(
        waits.waiting,
        [node for node, _ in occupied],
        running=load_running(session),
        teams=load_shares(session),
        past=past.read(session) if waits.is_shared else {},
    )
    queue = [Ahead(turn.job, holds.get(turn.job.id, UNKNOWN), turn.is_barred) for turn in ordered]
    nodes = [_node_slots(node, held) for node, held in occupied]
    starts = estimate_starts(nodes, queue)
    places = ((turn.job.id, place) for place, turn in enumerate(ordered, start=1))
    return Forecast(made_at, [Turn(job_id, place, starts[job_id]) for job_id, place in places])


def slots_in_sum(session: Session, *, heard_within_s: float) -> list[Slots]:
    """What all nodes that are not lost have, by accelerator."""
    able = {node.id: len(node.free_slots) for node in load_nodes(session, heard_within_s=heard_within_s)}
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in session.execute(_slot_states()):
        of = sums[row.accelerator]
        of["n_nodes"] += 1
        of["held"] += row.held
        of["dirty"] += row.dirty
        of["free"] += able[row.id]
        of["unhealthy"] += row.unhealthy
        of["away"] += row.free - row.unhealthy - able[row.id]
    return [Slots(accelerator=accelerator, **of) for accelerator, of in sorted(sums.items())]


def _slot_states() -> Select[Any]:
    counts: list[ColumnElement[Any]] = [
        func.count().filter(Slot.state == state).label(state.value)
        for state in (SlotState.FREE, SlotState.HELD, SlotState.DIRTY)
    ]
    unhealthy = func.count().filter(Slot.state == SlotState.FREE, Slot.unhealthy_reason.is_not(None))
    query: Select[Any] = select(NodeRow.id, NodeRow.accelerator, *counts, unhealthy.label("unhealthy"))
    return (
        query.join(Slot, Slot.node_id == NodeRow.id)
        .where(NodeRow.state != NodeState.LOST)
        .group_by(NodeRow.id)
    )


def _node_slots(node: Node, held: list[Span]) -> NodeSlots:
    """Free slots are free now; what is neither free nor held by a job comes free nobody knows when."""
    free = [NOW] * len(node.free_slots)
    rest = [UNKNOWN] * (node.n_slots - len(free) - len(held))
    # A slot that changed hands between two reads may be in both.
    return NodeSlots(node, (*free, *held, *rest)[: node.n_slots])


def _nodes(session: Session, made_at: float, *, heard_within_s: float) -> list[tuple[Node, list[Span]]]:
    """Each node, and how long each of its held slots is still held; of one that leaves, nobody knows."""
    takes_work = set(session.scalars(select(NodeRow.id).where(NodeRow.state == NodeState.READY)))
    held: dict[str, list[Span]] = defaultdict(list)
    for row in session.execute(_holders()):
        span = _still_holds(row, made_at) if row.node_id in takes_work else UNKNOWN
        held[row.node_id] += [span] * row.n_slots
    return [(node, held[node.id]) for node in load_nodes(session, heard_within_s=heard_within_s)]


def _holders() -> Select[Any]:
    """The jobs that hold slots, node by node."""
    return (
        select(
            Slot.node_id,
            func.count().label("n_slots"),
            Job.state,
            Job.stop_reason,
            Job.progress,
            cast(Job.resolved["max_duration_s"].astext, Float).label("max_duration_s"),
            _ran_s().label("ran_s"),
        )
        .join(Allocation, Allocation.id == Slot.allocation_id)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .group_by(Slot.node_id, Job.id)
    )


def _still_holds(row: Any, made_at: float) -> Span:
    if row.state is JobState.STOPPING:
        return leaving(STOP_GRACE_S[StopReason(row.stop_reason)])
    told = _told(row, made_at)
    return running(told) if row.state is JobState.RUNNING else once_started(told)


def _holds_once_started(session: Session, made_at: float) -> Mapping[str, Span]:
    """Of the waiting jobs of which anything is known: how long they will hold slots."""
    rows = session.execute(
        select(
            Job.id,
            Job.progress,
            cast(Job.resolved["max_duration_s"].astext, Float).label("max_duration_s"),
            _ran_s().label("ran_s"),
        ).where(
            and_(
                Job.state == JobState.QUEUED,
                Job.progress.is_not(None) | Job.resolved["max_duration_s"].astext.is_not(None),
            )
        )
    )
    return {row.id: once_started(_told(row, made_at)) for row in rows}


def _ran_s() -> Any:
    """How long the job's trainers have run, over all tries."""
    mine = select(func.coalesce(func.sum(Attempt.ran_s), 0.0)).where(Attempt.job_id == Job.id)
    return mine.correlate(Job).scalar_subquery()


def _told(row: Any, made_at: float) -> Told:
    return Told.read(row.progress, now=made_at, ran_s=row.ran_s, max_duration_s=row.max_duration_s)
