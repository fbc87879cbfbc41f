"""Checkpoints of a job as rows, and its tries one after the other, for tests that need no files."""

from __future__ import annotations

from typing import Any

from dispatch_rows import World

from shared.db import checkpoints, leases
from shared.db.leases import Claim
from shared.db.steps import run_step
from shared.domain.events import CheckpointManifest
from shared.domain.job import Outcome


def store(world: World, claimed: Claim, step: int, *, is_best: bool = False) -> bool:
    manifest = CheckpointManifest(epoch=step, step=step, is_best=is_best, metrics={"loss": 0.5}, files=[])
    return run_step(
        world.engine,
        leases.add_checkpoint,
        token=claimed.token,
        manifest=manifest,
        storage_prefix=f"{claimed.attempt_id}/{step}",
        actor="node-0",
    )


def next_try(world: World, claimed: Claim, outcome: Outcome = Outcome.LOST, **report: Any) -> Claim:
    """The job's next attempt, after this one has ended."""
    assert world.finish(claimed, outcome, **report)
    following = world.claim(world.offer(claimed.job_id))
    assert following is not None
    return following


def go_on_from(world: World, claimed: Claim, checkpoint_id: str | None) -> bool:
    return run_step(
        world.engine, checkpoints.go_on_from, token=claimed.token, checkpoint_id=checkpoint_id, actor="node-0"
    )
