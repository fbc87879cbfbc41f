"""Where things lie in the store, and which keys it takes."""

from __future__ import annotations

import re

from shared.artifacts.errors import BadKey
from shared.domain.sweeping import AttemptPlace, Part, Place, UploadPlace

_MAX_LENGTH = 900  # S3 ends at 1024 bytes; this leaves room for the prefix of the store's own address
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@-]{0,199}\Z")


def checked_key(key: str) -> str:
    """The key itself if every adapter can hold it safely; else `BadKey`.

    A key is names joined by `/`. A name starts with a letter, a digit or `_` (so `..` and hidden files are
    out), goes on with these and `. - = + @`, and has at most 200 characters.
    """
    if len(key) > _MAX_LENGTH:
        raise BadKey(f"artifact key of {len(key)} characters: at most {_MAX_LENGTH} are allowed")
    for part in key.split("/"):
        if not _PART.match(part):
            raise BadKey(
                f"artifact key {key!r}: {part!r} is not a plain name "
                "(1 to 200 of A-Z a-z 0-9 _ . - = + @, not starting with a sign)"
            )
    return key


def file_key(team_id: str, file_id: str) -> str:
    """An uploaded file."""
    return checked_key(f"teams/{team_id}/files/{file_id}")


def job_prefix(team_id: str, job_id: str) -> str:
    """Everything that a job has stored."""
    return checked_key(f"teams/{team_id}/jobs/{job_id}")


def attempt_prefix(team_id: str, job_id: str, attempt_id: str) -> str:
    """Everything that one try of a job has stored."""
    return checked_key(f"{job_prefix(team_id, job_id)}/attempts/{attempt_id}")


def checkpoint_prefix(team_id: str, job_id: str, attempt_id: str, step: int) -> str:
    """One checkpoint; steps are padded so that keys sort as numbers do."""
    return checked_key(f"{attempt_prefix(team_id, job_id, attempt_id)}/checkpoints/step-{step:09d}")


def artifact_key(team_id: str, job_id: str, attempt_id: str, name: str) -> str:
    """A result of a try, such as `model.safetensors`."""
    return checked_key(f"{attempt_prefix(team_id, job_id, attempt_id)}/artifacts/{name}")


_UPLOAD = re.compile(r"teams/([^/]+)/files/(file-[^/]+)\Z")
_OUTPUT = re.compile(r"teams/([^/]+)/jobs/([^/]+)/attempts/(attempt-[^/]+)/(artifacts|checkpoints)/(.+)\Z")
_OF_CHECKPOINT = re.compile(r"step-\d{9,}/[^/]+\Z")


def place_of(key: str) -> Place | None:
    """What lies under a key, as the functions above make them; None for a key that none of them makes."""
    if upload := _UPLOAD.match(key):
        return UploadPlace(upload[1], upload[2])
    output = _OUTPUT.match(key)
    if output is None or (output[4] == Part.CHECKPOINTS and not _OF_CHECKPOINT.match(output[5])):
        return None
    return AttemptPlace(output[1], output[2], output[3], Part(output[4]), output[5])
