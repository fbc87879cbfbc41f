"""outcome.json where the engine left none: how a run ended, from what its ranks left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from shared.domain.events import LOG_FILE, OUTCOME_FILE, ErrorReport, OutcomeReport, StopRequest
from shared.domain.failures import PEER_LOST, WORKER_LOST, known_code, outcome_of
from shared.domain.job import Outcome
from worker.run_files import NotAPlainFile, end_of, read_plain
from worker.run_folder import write_whole

FENCED = "fenced"
TRAINER_ENDED = "trainer_ended"
_LOG_END_BYTES = 4_000


def settle(
    run: Path,
    fallback: OutcomeReport,
    deaths: Iterable[ErrorReport] = (),
    amended: Callable[[ErrorReport], ErrorReport] = lambda error: error,
) -> OutcomeReport:
    """How the run ended: the engine's outcome, else the earliest error, else `fallback`; in outcome.json.

    `deaths` are of ranks that a signal ended; `amended` adds what the launcher knows of an error. A rank that
    only saw a peer go tells less than whoever ended the run, and more than nothing.
    """
    told = read_outcome(run)
    if told is not None:
        return told
    errors = [*_error_reports(run), *deaths]
    first = min((one for one in errors if one.code != PEER_LOST), key=_when, default=None)
    if first is None and fallback.error is not None and fallback.error.code == TRAINER_ENDED:
        first = min(errors, key=_when, default=None)
    report = fallback if first is None else OutcomeReport(outcome=outcome_of(first.code), error=first)
    if report.error is not None:
        report = report.model_copy(update={"error": amended(report.error)})
    with suppress(OSError):  # a full disk: the supervisor finds the same once more
        write_whole(run / OUTCOME_FILE, report.model_dump_json(indent=1))
    return report


def read_outcome(run: Path) -> OutcomeReport | None:
    """outcome.json; None where there is none, or none that can be read."""
    try:
        return OutcomeReport.model_validate_json(read_plain(run, OUTCOME_FILE))
    except (FileNotFoundError, NotAPlainFile, ValidationError):
        return None


def ended_by(code: str, message: str) -> OutcomeReport:
    """What was wrong outside of the ranks; whether it is tried again, its code says."""
    code = known_code(code)
    error = ErrorReport(code=code, message=message, time=time.time())
    return OutcomeReport(outcome=outcome_of(code), error=error)


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


def _when(report: ErrorReport) -> float:
    return report.time


def _error_reports(run: Path) -> list[ErrorReport]:
    reports = []
    for path in run.glob("error-rank*.json"):
        try:
            reports.append(ErrorReport.model_validate_json(read_plain(run, path.name)))
        except (FileNotFoundError, NotAPlainFile, ValidationError):
            continue  # a rank that was killed while it wrote: the others' say, or the fallback, holds
    return reports
