"""What of the store may go: pure rules over what the rows say of each stored file.

A file goes only for a reason that a row gives: its team, job or upload was deleted, its checkpoint was
dropped, or its attempt has ended and nothing refers to it. No such reason is ever taken back, so one that was
read just now still holds. What no row explains stays, and so does all that is young: whoever was fenced off
may still be writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.domain.events import LOG_FILE


class Part(StrEnum):
    """The two folders of an attempt."""

    ARTIFACTS = "artifacts"
    CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class UploadPlace:
    """Where an uploaded file lies."""

    team_id: str
    file_id: str


@dataclass(frozen=True)
class AttemptPlace:
    """Where a file of an attempt lies; `name` is an artifact's, or `step-N/` and a checkpoint's file."""

    team_id: str
    job_id: str
    attempt_id: str
    part: Part
    name: str


Place = UploadPlace | AttemptPlace


@dataclass(frozen=True)
class Stored:
    """A file of the store, written `age_s` ago. `place` is None where its key has no shape that we know."""

    key: str
    bytes: int
    age_s: float
    place: Place | None


@dataclass(frozen=True)
class UploadRow:
    """`deleted_for_s`: None while it is there."""

    team_id: str
    storage_key: str
    deleted_for_s: float | None


@dataclass(frozen=True)
class JobRow:
    """`is_needed`: it is not over, an attempt of it is live, or an unfinished job goes on from its result."""

    team_id: str
    is_needed: bool
    deleted_for_s: float | None


@dataclass(frozen=True)
class AttemptRow:
    """`ended_for_s`: None while it is live: offered, running or ending."""

    job_id: str
    ended_for_s: float | None


@dataclass(frozen=True)
class CheckpointRow:
    """`is_taken_up`: a live attempt goes on from it. `dropped_for_s`: None while it is kept."""

    attempt_id: str
    is_taken_up: bool
    dropped_for_s: float | None


@dataclass(frozen=True)
class Rows:
    """All that the database knows of some stored files: rows by id, checkpoints by where they lie.

    `artifacts` are the keys that some result refers to; `gone_teams` says how long ago each team was deleted.
    """

    gone_teams: Mapping[str, float] = field(default_factory=dict)
    uploads: Mapping[str, UploadRow] = field(default_factory=dict)
    jobs: Mapping[str, JobRow] = field(default_factory=dict)
    attempts: Mapping[str, AttemptRow] = field(default_factory=dict)
    checkpoints: Mapping[str, CheckpointRow] = field(default_factory=dict)
    artifacts: frozenset[str] = frozenset()


class Verdict(StrEnum):
    """What becomes of a stored file, and why. `GOES` are those that may be removed."""

    NEEDED = "needed"
    YOUNG = "young"  # or what it belonged to has not been over for long enough
    UNKNOWN = "unknown"  # no row explains it: another program's, or of another database
    DELETED_TEAM = "deleted_team"
    DELETED_FILE = "deleted_file"
    DELETED_JOB = "deleted_job"
    DROPPED_CHECKPOINT = "dropped_checkpoint"
    LEFT_OVER = "left_over"  # its attempt has ended, and neither a result nor a checkpoint refers to it


GOES = frozenset(
    {
        Verdict.DELETED_TEAM,
        Verdict.DELETED_FILE,
        Verdict.DELETED_JOB,
        Verdict.DROPPED_CHECKPOINT,
        Verdict.LEFT_OVER,
    }
)


def judge(stored: Stored, rows: Rows, *, grace_s: float) -> Verdict:
    """What becomes of one file. Nothing goes that is younger than `grace_s`, or whose reason is."""
    match stored.place:
        case None:
            verdict = Verdict.UNKNOWN
        case place if place.team_id in rows.gone_teams:
            # It was deleted after all that it owned, and other rows of it may be gone.
            verdict = _when_old(rows.gone_teams[place.team_id], grace_s, Verdict.DELETED_TEAM)
        case UploadPlace() as place:
            verdict = _judge_upload(stored.key, place, rows, grace_s)
        case AttemptPlace() as place:
            verdict = _judge_output(stored.key, place, rows, grace_s)
    return Verdict.YOUNG if verdict in GOES and stored.age_s < grace_s else verdict


def _judge_upload(key: str, place: UploadPlace, rows: Rows, grace_s: float) -> Verdict:
    row = rows.uploads.get(place.file_id)
    if row is None or row.team_id != place.team_id or row.storage_key != key:
        return Verdict.UNKNOWN
    if row.deleted_for_s is None:
        return Verdict.NEEDED
    return _when_old(row.deleted_for_s, grace_s, Verdict.DELETED_FILE)


def _judge_output(key: str, place: AttemptPlace, rows: Rows, grace_s: float) -> Verdict:
    job, attempt = rows.jobs.get(place.job_id), rows.attempts.get(place.attempt_id)
    if job is None or attempt is None or (job.team_id, attempt.job_id) != (place.team_id, place.job_id):
        return Verdict.UNKNOWN
    verdict = _judge_by_attempt(key, place, attempt, rows, grace_s)
    if verdict in GOES or job.deleted_for_s is None or job.is_needed or attempt.ended_for_s is None:
        return verdict
    return _when_old(min(job.deleted_for_s, attempt.ended_for_s), grace_s, Verdict.DELETED_JOB)


def _judge_by_attempt(
    key: str, place: AttemptPlace, attempt: AttemptRow, rows: Rows, grace_s: float
) -> Verdict:
    """As in a job that is there."""
    if place.part is Part.CHECKPOINTS and (found := rows.checkpoints.get(_prefix(key, place))) is not None:
        return _judge_checkpoint(found, grace_s)
    if attempt.ended_for_s is None or key in rows.artifacts or _is_log(place):
        return Verdict.NEEDED
    return _when_old(attempt.ended_for_s, grace_s, Verdict.LEFT_OVER)


def _judge_checkpoint(row: CheckpointRow, grace_s: float) -> Verdict:
    """Whole and written once: one that was dropped may go even while its attempt is live."""
    if row.dropped_for_s is None or row.is_taken_up:
        return Verdict.NEEDED
    return _when_old(row.dropped_for_s, grace_s, Verdict.DROPPED_CHECKPOINT)


def _when_old(over_for_s: float, grace_s: float, verdict: Verdict) -> Verdict:
    return verdict if over_for_s >= grace_s else Verdict.YOUNG


def _is_log(place: AttemptPlace) -> bool:
    """A log has no row: it is found by its name, for as long as its job is there."""
    return place.part is Part.ARTIFACTS and place.name == LOG_FILE


def _prefix(key: str, place: AttemptPlace) -> str:
    """Where the checkpoint lies that this file is part of."""
    step = place.name.partition("/")[0]
    return f"{key.removesuffix(place.name)}{step}"
