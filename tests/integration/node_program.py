"""A real worker whose trainer is a stand-in: it holds its slot and renews until it is asked to stop.

It takes the settings from the environment. A file `finish` in the work folder makes the stand-in succeed.
"""

from __future__ import annotations

import os
import sys
import time

from shared import logs
from shared.db import leases
from shared.db.engine import make_engine
from shared.db.leases import Claim
from shared.db.steps import run_step
from shared.domain.job import Outcome
from shared.settings import Settings
from worker.serve import serve
from worker.slots import hold_shared, slot_lock_path


def stand_in(claimed: Claim, settings: Settings) -> None:
    held = [hold_shared(slot_lock_path(settings.work_dir, slot)) for slot in claimed.slots]
    (settings.work_dir / f"pid-{claimed.attempt_number}").write_text(str(os.getpid()))
    outcome = wait_for_the_end(claimed, settings)
    for descriptor in held:
        os.close(descriptor)
    if outcome is None:
        return
    run_step(
        make_engine(settings.database_url.get_secret_value()),
        leases.finish,
        token=claimed.token,
        allocation_id=claimed.allocation_id,
        outcome=outcome,
        error=None,
        result={},
        artifacts=(),
        clean=True,
        actor=settings.node_name,
    )


def wait_for_the_end(claimed: Claim, settings: Settings) -> Outcome | None:
    engine = make_engine(settings.database_url.get_secret_value())
    while not (settings.work_dir / "finish").exists():
        renewal = run_step(
            engine, leases.renew, token=claimed.token, allocation_id=claimed.allocation_id, lease_s=60
        )
        if renewal is None:
            return None
        if renewal.stop_reason is not None:
            return Outcome.STOPPED
        time.sleep(0.1)
    return Outcome.SUCCEEDED


if __name__ == "__main__":
    logs.configure("INFO")
    sys.exit(serve(Settings(), stand_in))
