"""The protocol as a state machine: whatever happens, in whatever order, its laws hold after each step.

Real Postgres, the functions that the services call, and no clock but the database's: what must be late is
made late by moving its time into the past.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from dispatch_rows import LEASE_S, World
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from protocol_laws import AT_WORK, Tables, word_of_the_end
from sqlalchemy import select, text, update

from scheduler.placing import place_jobs
from shared.db import drains, leases, nodes, reconcile, stops
from shared.db.base import Base
from shared.db.engine import make_engine, transaction
from shared.db.history import lock_job
from shared.db.leases import Claim
from shared.db.models import Allocation, Attempt, Job, NodeRow, Slot
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.errors import Conflict
from shared.domain.events import CheckpointManifest, ErrorReport
from shared.domain.job import (
    FINAL_JOB_STATES,
    AllocationState,
    AttemptState,
    JobState,
    NodeState,
    Outcome,
    SlotState,
    StopReason,
)
from shared.settings import Settings

NODES = ("node-0", "node-1", "node-2")
SLOTS = 3
OFFER_S, GANG_S, HOLD_AFTER_S = 15.0, 30.0, 40.0
Any_ = TypeVar("Any_")
# Which one of those there are: the same draw means the same one again, however many there are.
which = st.integers(min_value=0, max_value=10**6)
outcomes = st.sampled_from(Outcome)


def pick(found: list[Any_], number: int) -> Any_ | None:
    return found[number % len(found)] if found else None


class Protocol(RuleBasedStateMachine):
    """A subclass names the database, and what the scheduler is told."""

    world: World
    told: Settings

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[Offer] = []  # every message that was ever sent
        self.claims: list[tuple[Offer, UUID, Claim]] = []  # every claim that ever succeeded, and by which id
        self.over: dict[str, tuple[Any, ...]] = {}  # final jobs, as they were when first seen so
        with transaction(self.world.engine) as session:
            session.execute(text("truncate jobs, attempts, allocations, slots, events, nodes cascade"))

    @initialize()
    def begin(self) -> None:
        for node in NODES:
            self.world.node(node, slots=SLOTS)

    # What people do.

    @rule(n_nodes=st.integers(1, 3), devices=st.integers(1, 2), max_attempts=st.integers(1, 3))
    def submit(self, n_nodes: int, devices: int, max_attempts: int) -> None:
        self.world.job(nodes=n_nodes, devices_per_node=devices, max_attempts=max_attempts)

    @rule(n_nodes=st.integers(1, 3), max_attempts=st.integers(1, 3), n_claimed=st.integers(0, 3))
    def start(self, n_nodes: int, max_attempts: int, n_claimed: int) -> None:
        """What happens most: a job is placed at once, and some or all of its nodes answer."""
        for node in NODES:
            self.drain(node, away=False)
            self.beat(node, reachable=True)
            self.clean(node)
        job = self.world.job(nodes=n_nodes, max_attempts=max_attempts)
        for offer in self.place(self.world.read(job))[:n_claimed]:
            self.answer(offer)

    @rule(number=which, asked=st.sampled_from([StopReason.CANCEL, StopReason.PAUSE, StopReason.PREEMPT]))
    def ask_to_stop(self, number: int, asked: StopReason) -> None:
        """Refused or not, in whatever state: no law is broken by it."""
        at_work = [job for job in self.jobs() if job.state in AT_WORK]
        job = pick(at_work if at_work and number % 4 else self.jobs(), number)
        if job is not None:
            with transaction(self.world.engine) as session, suppress(Conflict):
                stops.ask_to_stop(session, lock_job(session, job.id), asked, actor="test")

    @rule(number=which)
    def resume(self, number: int) -> None:
        paused = pick([job for job in self.jobs() if job.state is JobState.PAUSED], number)
        if paused is not None:
            with transaction(self.world.engine) as session:
                stops.go_on(session, lock_job(session, paused.id), actor="test")

    # What the scheduler does.

    @rule()
    def pass_over_the_queue(self) -> None:
        self.offers += run_step(self.world.engine, place_jobs, self.told)

    @rule(number=which)
    def place_one(self, number: int) -> None:
        """On other nodes than the scheduler would choose."""
        job = pick([job for job in self.jobs() if job.state is JobState.QUEUED], number)
        if job is not None:
            self.place(job)

    @rule(age_s=st.sampled_from([OFFER_S + 1, GANG_S + 1]))
    def answer_silence(self, age_s: float) -> None:
        with transaction(self.world.engine) as session:
            late = text(f"clock_timestamp() - interval '{age_s} s'")
            session.execute(
                update(Allocation).where(Allocation.state == AllocationState.OFFERED).values(offered_at=late)
            )
            session.execute(
                update(Attempt).where(Attempt.state == AttemptState.OFFERED).values(created_at=late)
            )
        for token in run_step(self.world.engine, reconcile.unanswered_offers, offer_s=OFFER_S):
            again = run_step(self.world.engine, reconcile.offer_again, token, offer_s=OFFER_S, gang_s=GANG_S)
            for offer in again:
                sent = [one for one in self.offers if one.allocation_id == offer.allocation_id]
                assert all(one.dispatch_seq < offer.dispatch_seq for one in sent), (
                    "made anew, it is told apart"
                )
            self.offers += again

    @rule()
    def withdraw_stopped_offers(self) -> None:
        for token in run_step(self.world.engine, reconcile.stopped_offers):
            run_step(self.world.engine, reconcile.withdraw, token)

    @rule(number=which)
    def expire(self, number: int) -> None:
        held = pick(self.claimed(), number)
        if held is None:
            return
        with transaction(self.world.engine) as session:
            past = text("clock_timestamp() - interval '1 s'")
            session.execute(update(Allocation).where(Allocation.id == held.id).values(lease_expires_at=past))
        for token in run_step(self.world.engine, reconcile.expired_leases):
            run_step(self.world.engine, reconcile.expire, token)
        assert self.world.allocation(held.id).state is AllocationState.EXPIRED

    @rule(number=which)
    def fall_silent(self, number: int) -> None:
        """A node renews nothing until its ranks are held: if it has a gang, that is told to leave."""
        silent = pick(self.claimed(), number)
        if silent is None:
            return
        with transaction(self.world.engine) as session:
            soon = text(f"clock_timestamp() + interval '{LEASE_S - HOLD_AFTER_S - 1} s'")
            session.execute(
                update(Allocation).where(Allocation.id == silent.id).values(lease_expires_at=soon)
            )
        before = self.attempt(silent)
        terms = {"unrenewed_s": HOLD_AFTER_S, "lease_s": LEASE_S}
        for token in run_step(self.world.engine, reconcile.held_gangs, **terms):
            assert run_step(self.world.engine, reconcile.end_held_gang, token, **terms)
            assert not run_step(self.world.engine, reconcile.end_held_gang, token, **terms)
        assert before.nodes > 1 or self.attempt(silent).state is before.state
        assert self.world.allocation(silent.id).state is AllocationState.CLAIMED

    @rule(number=which)
    def lose_a_node(self, number: int) -> None:
        with transaction(self.world.engine) as session:
            long_ago = text("clock_timestamp() - interval '1 hour'")
            session.execute(
                update(NodeRow).where(NodeRow.id == pick(list(NODES), number)).values(last_seen_at=long_ago)
            )
        run_step(self.world.engine, reconcile.lose_silent_nodes, lease_s=LEASE_S)

    # What workers do, in order or not.

    @rule(number=which, stale=st.sampled_from([0, 0, -1, 1]), right_life=st.sampled_from([True, True, False]))
    def deliver(self, number: int, stale: int, right_life: bool) -> None:
        """A message reaches a worker: the newest, an old one, one to a worker that was replaced."""
        sent = pick(self.open_offers() or self.offers, number)
        if sent is None:
            return
        offer = Offer(sent.allocation_id, sent.dispatch_seq + stale, sent.node_id)
        allocation = self.world.allocation(offer.allocation_id)
        with transaction(self.world.engine) as session:
            attempt = session.get_one(Attempt, allocation.attempt_id)
            job = session.get_one(Job, attempt.job_id)
        wanted = (
            right_life
            and allocation.state is AllocationState.OFFERED
            and allocation.dispatch_seq == offer.dispatch_seq
            and job.state is JobState.DISPATCHED
        )
        claimed = self.answer(offer, None if right_life else uuid4())
        assert (claimed is not None) == wanted, (allocation.state, allocation.dispatch_seq, offer, job.state)

    @precondition(lambda self: self.claims)
    @rule(number=which)
    def deliver_again(self, number: int) -> None:
        """The same message to another process starts nothing; the same handling finds its own success."""
        offer, claim_id, claimed = self.some_claim(number)
        life = self.world.incarnations[offer.node_id]
        assert self.claim(offer, uuid4(), life) is None
        again = self.claim(offer, claim_id, life)
        if self.world.allocation(offer.allocation_id).state is AllocationState.CLAIMED:
            assert again is not None
            assert (again.token, again.allocation_id) == (claimed.token, claimed.allocation_id)
        else:
            assert again is None

    @precondition(lambda self: self.claims)
    @rule(number=which)
    def renew(self, number: int) -> None:
        _, _, claimed = self.some_claim(number)
        holds = self.world.allocation(claimed.allocation_id).state is AllocationState.CLAIMED
        renewal = run_step(
            self.world.engine,
            leases.renew,
            token=claimed.token,
            allocation_id=claimed.allocation_id,
            lease_s=LEASE_S,
        )
        assert (renewal is not None) == holds
        if renewal is not None:
            assert renewal.stop_reason == self.world.read(claimed.job_id).stop_reason
        stranger = run_step(
            self.world.engine,
            leases.renew,
            token=uuid4(),
            allocation_id=claimed.allocation_id,
            lease_s=LEASE_S,
        )
        assert stranger is None

    @precondition(lambda self: self.claims)
    @rule(number=which, step=st.integers(1, 5))
    def write(self, number: int, step: int) -> None:
        """Only node rank 0 of the attempt whose lease stands writes."""
        _, _, claimed = self.some_claim(number)
        writer = next(one for one in self.shares(claimed.attempt_id) if one.node_rank == 0)
        written = run_step(
            self.world.engine,
            leases.add_checkpoint,
            token=claimed.token,
            manifest=CheckpointManifest(epoch=1, step=step, is_best=False, metrics={}, files=[]),
            storage_prefix=f"{claimed.attempt_id}/{step}",
            actor="test",
        )
        assert written == (writer.state is AllocationState.CLAIMED)

    @precondition(lambda self: self.claims)
    @rule(number=which, outcome=outcomes, in_order=st.booleans(), clean=st.booleans())
    def finish(self, number: int, outcome: Outcome, in_order: bool, clean: bool) -> None:
        """A worker tells how its share ended, be its lease lost long ago; it may tell it twice."""
        _, _, claimed = self.some_claim(number)
        before = self.world.allocation(claimed.allocation_id)
        if outcome is Outcome.SUCCEEDED and not self.has_run(claimed):
            outcome = Outcome.LOST  # nobody launches before all nodes have claimed
        leaves_in_order = outcome is Outcome.STOPPED and in_order
        error = ErrorReport(code="test", message=f"ended as {outcome}", time=time.time())
        for _ in range(2):
            accepted = self.world.finish(
                claimed,
                outcome,
                error=None if outcome is Outcome.SUCCEEDED or leaves_in_order else error,
                result={"of": claimed.attempt_id},
                clean=clean,
            )
            told_so_before = before.state is AllocationState.ENDED and before.outcome is outcome
            assert accepted == (before.state is AllocationState.CLAIMED or told_so_before)

    # What nodes do.

    @rule(node=st.sampled_from(NODES), reachable=st.booleans())
    def beat(self, node: str, reachable: bool) -> None:
        with transaction(self.world.engine) as session:
            session.execute(update(NodeRow).where(NodeRow.id == node).values(suspect_until=None))
        life = self.world.incarnations[node]
        assert run_step(self.world.engine, nodes.beat, node, life, reachable=reachable)
        assert not run_step(self.world.engine, nodes.beat, node, uuid4(), reachable=True)

    @rule(node=st.sampled_from(NODES))
    def begin_anew(self, node: str) -> None:
        """The worker died with all below it, and is started again: what it held is given back."""
        self.world.node(node, slots=SLOTS)
        for held in run_step(self.world.engine, nodes.claimed_by, node):
            assert run_step(self.world.engine, nodes.give_up, held, actor=node)
        assert run_step(self.world.engine, nodes.claimed_by, node) == []

    @rule(node=st.sampled_from(NODES))
    def clean(self, node: str) -> None:
        dirty = run_step(self.world.engine, nodes.dirty_slots, node)
        run_step(self.world.engine, nodes.clean_slots, node, dirty, n_slots=SLOTS)
        assert run_step(self.world.engine, nodes.dirty_slots, node) == []

    @rule(node=st.sampled_from(NODES))
    def leave(self, node: str) -> None:
        """The worker was told to end, and lets its jobs go."""
        life = self.world.incarnations[node]
        for token in run_step(self.world.engine, drains.start_drain, node, life):
            run_step(self.world.engine, drains.leave, token, node_id=node, actor=node, reason="It leaves.")

    @rule(node=st.sampled_from(NODES), away=st.booleans())
    def drain(self, node: str, away: bool) -> None:
        """An operator takes the node away, or gives it back."""
        with transaction(self.world.engine) as session:
            if away:
                drains.drain(session, node, actor="test")
            else:
                drains.undrain(session, node)
        for occupied in run_step(self.world.engine, drains.on_drained_nodes):
            run_step(self.world.engine, drains.vacate, occupied)

    # What must hold.

    @invariant()
    def laws(self) -> None:
        tables = Tables.read(self.world.engine)
        assert list(tables.broken()) == []
        ends = {job.id: word_of_the_end(job) for job in tables.jobs.values()}
        for job_id, end in self.over.items():
            assert ends[job_id] == end, "what is final never changes"
        self.over = {job_id: end for job_id, end in ends.items() if end is not None}
        tokens = [one.lease_token for attempts in tables.attempts.values() for one in attempts]
        assert len(tokens) == len(set(tokens))

    def teardown(self) -> None:
        """Nothing is in limbo: once every worker is dead and started again, each job can reach its end."""
        for node in NODES:
            self.world.node(node, slots=SLOTS)
            self.begin_anew(node)
            self.clean(node)
        self.answer_silence(GANG_S + 1)
        self.withdraw_stopped_offers()
        for job in self.jobs():
            if job.state not in FINAL_JOB_STATES:
                assert job.state in (JobState.QUEUED, JobState.PAUSED), f"{job.id} hangs as {job.state}"
        self.laws()

    # Acting and looking.

    def place(self, job: Job) -> list[Offer]:
        """Offer the job to the first nodes that have room for it; nothing where there are too few."""
        room = [(node, tuple(free[: job.devices_per_node])) for node, free in self.free_slots().items()]
        shares = [share for share in room if len(share[1]) == job.devices_per_node][: job.nodes]
        made = self.world.offer_gang(job.id, *shares) if len(shares) == job.nodes else []
        self.offers += made
        return made

    def answer(self, offer: Offer, incarnation: UUID | None = None) -> Claim | None:
        claim_id, life = uuid4(), incarnation or self.world.incarnations[offer.node_id]
        claimed = self.claim(offer, claim_id, life)
        if claimed is not None:
            self.claims.append((offer, claim_id, claimed))
        return claimed

    def open_offers(self) -> list[Offer]:
        """The newest message of each offer that stands."""
        standing = self._rows(Allocation, Allocation.state == AllocationState.OFFERED, order=Allocation.id)
        return [Offer(one.id, one.dispatch_seq, one.node_id) for one in standing]

    def some_claim(self, number: int) -> tuple[Offer, UUID, Claim]:
        """As often as not one whose lease stands."""
        held = {one.id for one in self.claimed()}
        standing = [one for one in self.claims if one[0].allocation_id in held]
        among = standing if standing and number % 2 else self.claims
        return among[number % len(among)]

    def claim(self, offer: Offer, claim_id: UUID, incarnation: UUID) -> Claim | None:
        return run_step(
            self.world.engine,
            leases.claim,
            allocation_id=offer.allocation_id,
            dispatch_seq=offer.dispatch_seq,
            node_id=offer.node_id,
            incarnation=incarnation,
            lease_s=LEASE_S,
            claim_id=claim_id,
        )

    def jobs(self) -> list[Job]:
        return self._rows(Job, order=Job.id)

    def claimed(self) -> list[Allocation]:
        held = Allocation.state == AllocationState.CLAIMED
        return self._rows(Allocation, held, order=Allocation.id)

    def attempt(self, share: Allocation) -> Attempt:
        with transaction(self.world.engine) as session:
            return session.get_one(Attempt, share.attempt_id)

    def has_run(self, claimed: Claim) -> bool:
        with transaction(self.world.engine) as session:
            return session.get_one(Attempt, claimed.attempt_id).running_at is not None

    def shares(self, attempt_id: str) -> list[Allocation]:
        return self._rows(Allocation, Allocation.attempt_id == attempt_id, order=Allocation.node_rank)

    def free_slots(self) -> dict[str, list[int]]:
        """Of nodes that may be given work."""
        ready = {row.id for row in self._rows(NodeRow, NodeRow.state == NodeState.READY, order=NodeRow.id)}
        free = self._rows(Slot, Slot.state == SlotState.FREE, order=Slot.index)
        return {node: [slot.index for slot in free if slot.node_id == node] for node in sorted(ready)}

    def _rows(self, table: type[Base], *where: Any, order: Any) -> list[Any]:
        with transaction(self.world.engine) as session:
            return list(session.scalars(select(table).where(*where).order_by(order)))


@pytest.fixture
def machine(settings: Settings) -> Iterator[type[Protocol]]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    world = World(engine).found()
    yield type("ProtocolHere", (Protocol,), {"world": world, "told": settings})
    engine.dispose()


def run(machine: type[Protocol], examples: int, steps: int) -> None:
    """How long a step takes says nothing here: the machine may be busy.

    What breaks a law is shown as it was found. To make it small takes minutes: add Phase.shrink by hand.
    """
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_laws_hold_whatever_happens(machine: type[Protocol]) -> None:
    run(machine, examples=12, steps=40)


@pytest.mark.slow
def test_the_laws_hold_whatever_happens_for_long(machine: type[Protocol]) -> None:
    run(machine, examples=20, steps=60)
