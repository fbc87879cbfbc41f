"""Whole checkpoints of a job, in the store and in the database, as a worker leaves them."""

from __future__ import annotations

import hashlib
import json

from api_house import ApiHouse
from sqlalchemy import select

from shared.artifacts import open_store
from shared.db.engine import transaction
from shared.db.models import Attempt, Checkpoint
from shared.domain.events import CheckpointManifest, ManifestEntry

STATE = bytes(range(256)) * 8


def store_checkpoint(api: ApiHouse, job_id: str, id: str, step: int, *, is_best: bool = False) -> None:
    """One with the file state.pt alone, of the job's only attempt."""
    store, prefix = open_store(api.settings.store_url), f"{job_id}/{step}"
    entry = ManifestEntry(name="state.pt", bytes=len(STATE), sha256=hashlib.sha256(STATE).hexdigest())
    manifest = CheckpointManifest(
        epoch=step, step=step, is_best=is_best, metrics={"validation_loss": 1 / step}, files=[entry]
    )
    store.put_bytes(f"{prefix}/state.pt", STATE)
    store.put_bytes(f"{prefix}/manifest.json", manifest.model_dump_json().encode())
    with transaction(api.engine) as session:
        session.add(
            Checkpoint(
                id=id,
                job_id=job_id,
                attempt_id=session.scalars(select(Attempt.id).where(Attempt.job_id == job_id)).one(),
                epoch=step,
                step=step,
                is_best=is_best,
                storage_prefix=prefix,
                manifest=json.loads(manifest.model_dump_json()),
            )
        )
