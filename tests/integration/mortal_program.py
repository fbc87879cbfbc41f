"""A real worker, lease, launcher and torch elastic agent whose ranks only live: to be killed at any level.

Beside the settings it takes MORTAL_FOLDER: there it notes each start, and each one that found a living
process of an earlier run on its slot.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

from shared import logs
from shared.db import leases
from shared.db.engine import make_engine
from shared.db.leases import Claim
from shared.domain.job import Outcome
from shared.settings import Settings
from worker.interruption import AttemptEnding, LeaseLost
from worker.launch import LAUNCH_FILE, LaunchPlan
from worker.lease import Lease
from worker.persist import until_answered
from worker.processes import become_subreaper
from worker.run_folder import run_folder, write_whole
from worker.serve import serve
from worker.slots import slot_lock_path, try_exclusive
from worker.supervisor import _slots_are_clean
from worker.trainer import launched

# As a trainer of ours, and a process below it as those that load the data.
RANK = """
import os, time
from worker.training.process import die_with_parent, prepare
prepare(os.environ)
me = os.getpid()
loader = os.fork()
if loader == 0:
    die_with_parent(me)
    time.sleep(600)
os.waitpid(loader, 0)
raise SystemExit("the process that loads data is gone")
"""


def mortal(claimed: Claim, settings: Settings) -> None:
    """One allocation, as the supervisor conducts it."""
    note_the_start(claimed, settings)
    become_subreaper()
    with (
        run_folder(settings.work_dir, claimed.attempt_id) as folder,
        Lease(claimed, settings, folder) as lease,
    ):
        try:
            live(claimed, settings, folder, lease)
        except LeaseLost:
            return
        engine = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=5, pool_size=1)
        until_answered(
            engine,
            lambda session: leases.finish(
                session,
                token=claimed.token,
                allocation_id=claimed.allocation_id,
                outcome=Outcome.LOST,
                error=None,
                result=None,
                artifacts=(),
                clean=_slots_are_clean(settings.work_dir, claimed.slots),
                actor=settings.node_name,
            ),
            give_up=lambda: None,
        )
        engine.dispose()


def live(claimed: Claim, settings: Settings, folder: Path, lease: Lease) -> None:
    while not lease.wait_until_confirmed(0.1):
        lease.check()
    modules = folder / "modules"
    modules.mkdir()
    (modules / "mortal_rank.py").write_text(RANK)
    plan = LaunchPlan(
        nodes=claimed.nodes,
        node_rank=claimed.node_rank,
        master_addr=claimed.master_addr,
        master_port=claimed.master_port,
        slot_locks=[str(slot_lock_path(settings.work_dir, slot)) for slot in claimed.slots],
        threads_per_rank=1,
        trainer_env={**settings.trainer_env, "PYTHONPATH": str(modules)},
        hold_after_s=settings.scaled(settings.hold_after_s),
        kill_after_held_s=settings.scaled(settings.kill_after_held_s),
        log_bytes=100_000,
    )
    write_whole(folder / LAUNCH_FILE, plan.model_dump_json())
    with launched(folder, "mortal_rank") as launcher:
        while True:
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(0.1)
                return
            try:
                lease.check()
            except AttemptEnding:
                return


def note_the_start(claimed: Claim, settings: Settings) -> None:
    """By the kernel's word, not the database's: the slots' locks, and what is in processes' environments."""
    notes = Path(os.environ["MORTAL_FOLDER"])
    locks = [slot_lock_path(settings.work_dir, slot) for slot in claimed.slots]
    alive = [pid for lock in locks for pid in on_slot(lock)]
    if alive or not all(try_exclusive(lock) for lock in locks):
        (notes / f"overlap-{uuid.uuid4().hex}").write_text(f"{claimed} found {alive} at {time.time()}")
    (notes / f"start-{claimed.attempt_id}").touch()


def on_slot(lock: Path) -> list[int]:
    """Living processes that were started for the slot."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and _has(entry, lock) and _state(entry) not in "ZX":
                found.append(int(entry.name))
    return found


def _has(entry: Path, lock: Path) -> bool:
    words = (entry / "environ").read_bytes().split(b"\0")
    return any(word.startswith(b"THAW_SLOT_LOCKS=") and bytes(lock) in word for word in words)


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


if __name__ == "__main__":
    logs.configure("WARNING")
    sys.exit(serve(Settings(), mortal))
