"""One allocation from its claim to its end, in a process of Celery's pool. Imports no torch."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import structlog
from sqlalchemy import Engine

from shared.db import leases
from shared.db.engine import make_engine
from shared.db.leases import Claim
from shared.domain.events import ErrorReport, OutcomeReport
from shared.domain.failures import DISK_FULL, SUPERVISOR_FAILED
from shared.domain.job import Outcome
from shared.settings import Settings
from worker.attempt import Attempt, End
from worker.devices import devices_of_worker
from worker.disk import full_disk_in_words
from worker.interruption import LeaseLost
from worker.lease import STATEMENT_TIMEOUT_S, Lease
from worker.persist import until_answered
from worker.processes import become_subreaper, forbid_inspection
from worker.run_folder import run_folder
from worker.slots import slot_lock_path, try_exclusive

_CLEAN_WAIT_S = 5.0
_LOOK_AGAIN_S = 0.05
_TRACEBACK_CHARACTERS = 6_000


def run(claim: Claim, settings: Settings) -> None:
    """Do what was claimed, and tell the database how it ended. Must be called in a process's main thread.

    What goes wrong with the job or its host ends the attempt and is not raised: as failed where it is the
    user's, else as lost, with its message.
    """
    log = structlog.get_logger(__name__).bind(job=claim.job_id, attempt=claim.attempt_id)
    log.info("attempt_begins", slots=claim.slots)
    url = settings.database_url.get_secret_value()
    engine = make_engine(url, statement_timeout_s=STATEMENT_TIMEOUT_S, pool_size=2)
    try:
        _hold_and_finish(claim, settings, engine)
    except LeaseLost as fenced:
        log.warning("attempt_fenced", reason=str(fenced))
    except Exception as error:
        log.exception("supervisor_failed")
        _finish(claim, settings, engine, End(_broken(error, settings.work_dir)))
    finally:
        engine.dispose()


def _hold_and_finish(claim: Claim, settings: Settings, engine: Engine) -> None:
    become_subreaper()
    if settings.trainer_uid is None:
        forbid_inspection()
    with (
        run_folder(settings.work_dir, claim.attempt_id, settings.trainer_uid) as folder,
        Lease(claim, settings, folder) as lease,
    ):
        end = Attempt(claim, settings, devices_of_worker(settings.slots), engine, folder, lease).live()
        _finish(claim, settings, engine, end)


def _finish(claim: Claim, settings: Settings, engine: Engine, end: End) -> None:
    """Say how it ended, as often as it takes until the database answers; a lost lease discards it."""
    clean = _slots_are_clean(settings.work_dir, claim.slots)
    accepted = until_answered(
        engine,
        lambda session: leases.finish(
            session,
            token=claim.token,
            allocation_id=claim.allocation_id,
            outcome=end.report.outcome,
            error=end.report.error,
            result=end.result,
            artifacts=end.artifacts,
            clean=clean,
            actor=settings.node_name,
            suspect_s=settings.scaled(settings.gang_s),
        ),
        give_up=lambda: None,
    )
    error = end.report.error
    structlog.get_logger(__name__).info(
        "attempt_ends" if accepted else "attempt_ends_discarded",
        job=claim.job_id,
        attempt=claim.attempt_id,
        outcome=end.report.outcome,
        error=error and error.message,
        clean=clean,
    )


def _slots_are_clean(work_dir: Path, slots: list[int]) -> bool:
    """Whether no process holds them. One that was killed just now gets a moment to be gone."""
    until = time.monotonic() + _CLEAN_WAIT_S
    while not all(try_exclusive(slot_lock_path(work_dir, slot)) for slot in slots):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def _broken(error: Exception, work_dir: Path) -> OutcomeReport:
    full_disk = full_disk_in_words(error, work_dir)
    report = ErrorReport(
        code=DISK_FULL if full_disk else SUPERVISOR_FAILED,
        message=full_disk or f"the worker itself failed: {type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:],
        time=time.time(),
    )
    return OutcomeReport(outcome=Outcome.LOST, error=report)
