"""What a run takes up, and what stands in the store while it goes on, written under the attempt's token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.db import checkpoints, leases
from shared.db.leases import Claim, StoredArtifact
from shared.db.work import ResumePoint
from shared.domain.events import CheckpointManifest, NoteLine
from worker.interruption import LeaseLost
from worker.lease import Lease
from worker.persist import until_answered


@dataclass(frozen=True)
class Records:
    """Waits out an outage of the database. Raises LeaseLost; `actor` is the node's name."""

    engine: Engine
    claim: Claim
    lease: Lease
    actor: str

    def checkpoint(self, manifest: CheckpointManifest, prefix: str) -> None:
        """A whole checkpoint, below `prefix`."""
        self._write(
            lambda session: leases.add_checkpoint(
                session, token=self.claim.token, manifest=manifest, storage_prefix=prefix, actor=self.actor
            )
        )

    def shard(self, shard: StoredArtifact) -> None:
        """A whole shard of activations: an artifact of the job from now on."""
        self._write(lambda session: leases.add_artifact(session, token=self.claim.token, artifact=shard))

    def note(self, code: str, message: str, data: dict[str, Any]) -> None:
        """A warning, as an event."""
        line = NoteLine(time=time.time(), level="warn", code=code, message=message, data=data)
        self._write(
            lambda session: leases.write_progress(
                session, token=self.claim.token, lines=[line], actor=self.actor
            )
        )

    def left_out(self, point: ResumePoint, why: str) -> None:
        """A checkpoint that cannot be used."""
        self._write(
            lambda session: checkpoints.leave_out(
                session, token=self.claim.token, checkpoint_id=point.id, why=why, actor=self.actor
            )
        )

    def goes_on_from(self, point: ResumePoint | None) -> None:
        """What the attempt takes up; None: it starts anew."""
        self._write(
            lambda session: checkpoints.go_on_from(
                session,
                token=self.claim.token,
                checkpoint_id=None if point is None else point.id,
                actor=self.actor,
            )
        )

    def _write(self, step: Callable[[Session], bool]) -> None:
        if not until_answered(self.engine, step, self.lease.check_held):
            raise LeaseLost("a write found that the lease is lost")
