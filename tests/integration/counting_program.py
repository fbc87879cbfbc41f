"""A real worker that leaves a file in STARTS for each start, and then only renews until its lease is lost."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

from shared import logs
from shared.db import leases
from shared.db.engine import make_engine
from shared.db.leases import Claim
from shared.db.steps import run_step
from shared.settings import Settings
from worker.serve import serve


def start(claimed: Claim, settings: Settings) -> None:
    note = f"{settings.node_name} {os.getpid()} {claimed.token}"
    (Path(os.environ["STARTS"]) / f"{claimed.job_id}-{uuid.uuid4().hex}").write_text(note)
    engine = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=5, pool_size=1)
    while run_step(
        engine, leases.renew, token=claimed.token, allocation_id=claimed.allocation_id, lease_s=60
    ):
        time.sleep(0.2)


if __name__ == "__main__":
    logs.configure("WARNING")
    sys.exit(serve(Settings(), start))
