"""A node that claims what it is offered, keeps its leases and leaves when it is asked; it trains nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from uuid import NAMESPACE_OID, uuid5

from dispatch_rows import LEASE_S, World
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from shared.artifacts import ArtifactStore
from shared.artifacts.keys import artifact_key
from shared.db import leases
from shared.db.engine import transaction
from shared.db.leases import Claim, StoredArtifact
from shared.db.models import Allocation
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.job import AllocationState, Outcome

MODEL = "model.safetensors"


class ObedientNode:
    """node-0 of a world. What a database that is away has not answered is asked again."""

    def __init__(self, world: World) -> None:
        self.claimed: list[Claim] = []
        self._world = world
        self._offered: dict[str, Offer] = {}
        self._held: dict[str, Claim] = {}

    def take(self, offer: Offer) -> Claim | None:
        """Claim what is offered; asked again, it is the same claim."""
        claim = self._world.claim(offer, claim_id=uuid5(NAMESPACE_OID, offer.allocation_id))
        if claim is not None:
            self.claimed.append(claim)
            self._held[claim.allocation_id] = claim
        self._offered.pop(offer.allocation_id, None)
        return claim

    def leave_a_file(self, claim: Claim, store: ArtifactStore) -> None:
        """A first one of its result."""
        key = artifact_key(claim.team_id, claim.job_id, claim.attempt_id, MODEL)
        stored = store.put_bytes(key, b"weights")
        artifact = StoredArtifact(MODEL, key, stored.size, stored.sha256)
        assert run_step(self._world.engine, leases.add_artifact, token=claim.token, artifact=artifact)

    def work(self, stop: Event) -> None:
        """Until told to stop: take offers, renew, and leave where that is asked."""
        while not stop.wait(0.02):
            with suppress(DBAPIError):
                self._offered |= self._offers()
                for offer in list(self._offered.values()):
                    self.take(offer)
                for claim in list(self._held.values()):
                    self._renew(claim)

    def succeed(self) -> None:
        """End what is still held, with a result."""
        for claim in self._held.values():
            assert self._world.finish(claim, Outcome.SUCCEEDED, result={"accuracy": 1})

    def _renew(self, claim: Claim) -> None:
        told = run_step(
            self._world.engine,
            leases.renew,
            token=claim.token,
            allocation_id=claim.allocation_id,
            lease_s=LEASE_S,
        )
        if told is not None and told.stop_reason is not None:
            self._world.finish(claim, Outcome.STOPPED)
            told = None
        if told is None:
            del self._held[claim.allocation_id]

    def _offers(self) -> dict[str, Offer]:
        with transaction(self._world.engine) as session:
            offered = select(Allocation).where(Allocation.state == AllocationState.OFFERED)
            return {one.id: Offer(one.id, one.dispatch_seq, one.node_id) for one in session.scalars(offered)}


@contextmanager
def at_work(node: ObedientNode) -> Iterator[None]:
    """In a thread of its own until the block ends."""
    stop = Event()
    thread = Thread(target=node.work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
