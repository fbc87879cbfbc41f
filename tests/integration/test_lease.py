"""A lease in its thread: what it makes of what a renewal tells."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from dispatch_rows import World
from waiting import eventually

from shared.db import drains
from shared.db.engine import make_engine
from shared.db.steps import run_step
from shared.domain.job import StopReason
from shared.settings import Settings
from worker.lease import Lease


@pytest.mark.parametrize(
    ("reason", "node_leaves", "grace_s"),
    [
        (StopReason.CANCEL, False, 0.3),
        (StopReason.CANCEL, True, 0.3),
        (StopReason.DRAIN, True, 3.0),
        (StopReason.PREEMPT, False, math.inf),
        (StopReason.PAUSE, False, math.inf),
        (StopReason.PAUSE, True, 3.0),
    ],
)
def test_a_run_that_must_be_gone_has_its_grace_to_wait_for_the_store(
    settings: Settings, tmp_path: Path, reason: StopReason, node_leaves: bool, grace_s: float
) -> None:
    settings.time_scale = 0.01
    engine = make_engine(settings.database_url.get_secret_value())
    world = World(engine).found()
    claimed = world.running()
    with Lease(claimed, settings, tmp_path) as lease:
        assert lease.patience_left_s() == math.inf
        if node_leaves:
            run_step(engine, drains.start_drain, "node-0", world.incarnations["node-0"])
        world.stop(claimed.job_id, reason)
        eventually(lambda: lease.stop_reason is reason)
        left_s = lease.patience_left_s()
        assert left_s <= grace_s
        assert math.isinf(left_s) is math.isinf(grace_s)
    engine.dispose()
