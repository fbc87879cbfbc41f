"""outcome.json where the engine left none: how a run ended, from what its ranks left behind."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import ValidationError

from shared.domain.events import LOG_FILE, OUTCOME_FILE, ErrorReport, OutcomeReport, StopRequest
from shared.domain.job import Outcome
from worker.run_files import NotAPlainFile, end_of, read_plain
from worker.run_folder import write_whole

PEER_LOST = "peer_lost"
FENCED = "fenced"
WORKER_LOST = "worker_lost"
_LOG_END_BYTES = 4_000


def settle(run: Path, fallback: OutcomeReport) -> OutcomeReport:
    """The engine's outcome; else the earliest error of a rank; else `fallback`. Then outcome.json says it."""
    told = read_outcome(run)
    if told is not None:
        return told
    report = from_errors(run) or fallback
    write_whole(run / OUTCOME_FILE, report.model_dump_json(indent=1))
    return report


def read_outcome(run: Path) -> OutcomeReport | None:
    """outcome.json; None where there is none, or none that can be read."""
    try:
        return OutcomeReport.model_validate_json(read_plain(run, OUTCOME_FILE))
    except (FileNotFoundError, NotAPlainFile, ValidationError):
        return None


def from_errors(run: Path) -> OutcomeReport | None:
    """The earliest error of a rank, lost peers aside: failed. Lost peers alone: lost. None: no error."""
    reports = sorted(_error_reports(run), key=lambda report: report.time)
    for report in reports:
        if report.code != PEER_LOST:
            return OutcomeReport(outcome=Outcome.FAILED, error=report)
    return OutcomeReport(outcome=Outcome.LOST, error=reports[0]) if reports else None


def lost(message: str, *, code: str = WORKER_LOST, run: Path | None = None) -> OutcomeReport:
    """The attempt is to be tried again. With `run`, the end of its log goes with the message."""
    log = "" if run is None else end_of(run, LOG_FILE, _LOG_END_BYTES).decode(errors="replace")
    error = ErrorReport(code=code, message=message, traceback=log or None, time=time.time())
    return OutcomeReport(outcome=Outcome.LOST, error=error)


def overstayed(asked: StopRequest) -> OutcomeReport:
    """The run was asked to stop, and did not leave in time by itself."""
    message = f"it did not leave within {asked.grace_s:g} s and was killed"
    error = ErrorReport(code="grace_over", message=message, time=time.time())
    return OutcomeReport(outcome=Outcome.STOPPED, reason=asked.reason, error=error)


def _error_reports(run: Path) -> list[ErrorReport]:
    reports = []
    for path in run.glob("error-rank*.json"):
        try:
            reports.append(ErrorReport.model_validate_json(read_plain(run, path.name)))
        except (FileNotFoundError, NotAPlainFile, ValidationError):
            continue  # a rank that was killed while it wrote: the others' say, or the fallback, holds
    return reports
