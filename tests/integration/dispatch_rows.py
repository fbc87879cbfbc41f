"""Teams, files, jobs and nodes as rows, for tests of dispatch that need no API."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from shared.db import leases, nodes, placement
from shared.db.engine import transaction
from shared.db.history import lock_job, move
from shared.db.leases import Claim
from shared.db.models import (
    Allocation,
    ApiKey,
    Attempt,
    Event,
    File,
    Job,
    NodeRow,
    RegisteredModel,
    Slot,
    Team,
)
from shared.db.nodes import NodeFacts
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.cluster import Part, Placement
from shared.domain.events import ErrorReport
from shared.domain.job import JobState, Outcome
from shared.ids import new_id
from worker.registered import registered_models

LEASE_S = 60.0


@dataclass
class World:
    """A database with one team, and short words for what tests do to it."""

    engine: Engine
    incarnations: dict[str, UUID] = field(default_factory=dict)

    def found(self) -> World:
        """Write the team, its key and its file."""
        with self._session() as session:
            session.add(Team(id="team-1", name="one"))
            session.flush()
            session.add(
                ApiKey(id="key-1", team_id="team-1", name="k", role="member", prefix="thaw_", sha256="0")
            )
            session.add(
                File(
                    id="file-1",
                    team_id="team-1",
                    filename="digits.zip",
                    purpose="fine-tune",
                    bytes=3,
                    sha256="ab",
                    storage_key="files/file-1",
                    format="image_folder",
                    details={"classes": ["0", "1"]},
                )
            )
        return self

    def know_models(self) -> World:
        """The registered models are described already: no start of a worker has to start torch for it."""
        with self._session() as session:
            for model in registered_models():
                session.add(
                    RegisteredModel(
                        name=model.name, hash=model.hash, version=model.version, description={"tree": {}}
                    )
                )
        return self

    def node(
        self,
        name: str = "node-0",
        *,
        slots: int = 2,
        accelerator: str = "cpu",
        host: str = "127.0.0.1",
        machine: str | None = None,
    ) -> UUID:
        """Register a node, anew if it is there already; returns its incarnation."""
        self.incarnations[name] = uuid4()
        facts = NodeFacts(
            id=name,
            queue=f"thaw@{name}.dq2",
            advertise_host=host,
            port_base=29500,
            accelerator=accelerator,
            memory_bytes=None,
            n_slots=slots,
            models=(),
            machine=machine,
        )
        run_step(self.engine, nodes.register, facts, self.incarnations[name])
        return self.incarnations[name]

    def job(self, state: JobState = JobState.QUEUED, **columns: Any) -> str:
        """Write a job that waits (queued), unless another state is asked for."""
        values: dict[str, Any] = {
            "id": new_id("ftjob"),
            "team_id": "team-1",
            "created_by": "key-1",
            "state": JobState.VALIDATING_FILES,
            "model": "resnet18",
            "training_file_id": "file-1",
            "spec": {},
            "resolved": {"target": {"source": "torchvision", "name": "resnet18", "hash": None}},
            "freeze_plan": {},
            "devices_per_node": 1,
            "nodes": 1,
            "accelerator": "any",
            "max_attempts": 3,
            "n_events": 0,
            **columns,
        }
        with self._session() as session:
            job = Job(**values)
            session.add(job)
            session.flush()
            if state is not JobState.VALIDATING_FILES:
                move(session, job, state, actor="test", reason="as the test wants it")
        return str(values["id"])

    def offer(self, job_id: str, node: str = "node-0", slots: tuple[int, ...] = (0,)) -> Offer:
        """Place a job, as the scheduler would."""
        (offer,) = self.offer_gang(job_id, (node, slots))
        return offer

    def offer_gang(self, job_id: str, *parts: tuple[str, tuple[int, ...]]) -> list[Offer]:
        """Place a job on (node, slots) by node rank, as the scheduler would; empty where `place` refuses."""
        placed = Placement(job_id, tuple(Part(*part) for part in parts))
        return run_step(self.engine, placement.place, placed)

    def claim(self, offer: Offer, *, lease_s: float = LEASE_S, claim_id: UUID | None = None) -> Claim | None:
        """Answer an offer, as the node's worker would."""
        return run_step(
            self.engine,
            leases.claim,
            allocation_id=offer.allocation_id,
            dispatch_seq=offer.dispatch_seq,
            node_id=offer.node_id,
            incarnation=self.incarnations[offer.node_id],
            lease_s=lease_s,
            claim_id=claim_id,
        )

    def running(self, *, lease_s: float = LEASE_S, **columns: Any) -> Claim:
        """A job that runs on node-0, and its claim."""
        if "node-0" not in self.incarnations:
            self.node()
        claimed = self.claim(self.offer(self.job(**columns)), lease_s=lease_s)
        assert claimed is not None
        return claimed

    def finish(
        self,
        claimed: Claim,
        outcome: Outcome,
        *,
        error: ErrorReport | None = None,
        result: dict[str, Any] | None = None,
        artifacts: tuple[leases.StoredArtifact, ...] = (),
        clean: bool = True,
        suspect_s: float = 0.0,
    ) -> bool:
        """Report the end of an allocation."""
        return run_step(
            self.engine,
            leases.finish,
            token=claimed.token,
            allocation_id=claimed.allocation_id,
            outcome=outcome,
            error=error,
            result=result,
            artifacts=artifacts,
            clean=clean,
            actor="node-0",
            suspect_s=suspect_s,
        )

    def stop(self, job_id: str, reason: Any) -> None:
        """Ask a job to stop, as the API would."""
        with self._session() as session:
            job = lock_job(session, job_id)
            move(session, job, JobState.STOPPING, actor="test", reason="asked", stop_reason=reason)

    def read(self, job_id: str) -> Job:
        """The job's row as it is now."""
        with self._session() as session:
            return session.get_one(Job, job_id)

    def attempts(self, job_id: str) -> list[Attempt]:
        """The job's tries."""
        with self._session() as session:
            return list(
                session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number))
            )

    def allocation(self, allocation_id: str) -> Allocation:
        """An allocation's row."""
        with self._session() as session:
            return session.get_one(Allocation, allocation_id)

    def shares(self, attempt_id: str) -> list[Allocation]:
        """An attempt's allocations by node rank."""
        query = select(Allocation).where(Allocation.attempt_id == attempt_id)
        with self._session() as session:
            return list(session.scalars(query.order_by(Allocation.node_rank)))

    def events(self, job_id: str) -> list[Event]:
        """The job's history."""
        with self._session() as session:
            return list(session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)))

    def slots(self, node: str = "node-0") -> list[str]:
        """The states of a node's slots, by index."""
        with self._session() as session:
            rows = session.scalars(select(Slot).where(Slot.node_id == node).order_by(Slot.index))
            return [str(slot.state) for slot in rows]

    def node_row(self, node: str = "node-0") -> NodeRow:
        """A node's row."""
        with self._session() as session:
            return session.get_one(NodeRow, node)

    def _session(self) -> AbstractContextManager[Session]:
        return transaction(self.engine)
