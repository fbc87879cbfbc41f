"""What stands in the store while a run goes on, written down under the attempt's token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.db import leases
from shared.db.leases import Claim, StoredArtifact
from shared.domain.events import CheckpointManifest
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

    def _write(self, step: Callable[[Session], bool]) -> None:
        if not until_answered(self.engine, step, self.lease.check_held):
            raise LeaseLost("a write found that the lease is lost")
