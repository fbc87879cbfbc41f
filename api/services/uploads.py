"""Files in and out: checked first, then their bytes stored, then their row; gone in the opposite order."""

from __future__ import annotations

from contextlib import suppress
from typing import BinaryIO

import structlog
from sqlalchemy import Engine

from api.services.inspection import inspect
from api.services.team_limits import check_upload
from shared.artifacts import ArtifactStore, StoreUnavailable
from shared.artifacts.keys import file_key
from shared.artifacts.store import CHUNK_BYTES
from shared.db.engine import transaction
from shared.db.files import delete_file, is_stored
from shared.db.models import File
from shared.db.scope import Scope
from shared.db.teams import check_team_stays
from shared.domain.errors import Invalid, TooLarge
from shared.ids import new_id
from shared.settings import Settings

log = structlog.get_logger(__name__)

PURPOSE = "fine-tune"
_MAX_FILENAME = 255


def store_upload(
    engine: Engine,
    store: ArtifactStore,
    settings: Settings,
    team_id: str,
    *,
    file: BinaryIO,
    filename: str,
    purpose: str,
) -> File:
    """Check a seekable file and keep it. On any refusal neither bytes nor row are left."""
    _check_form(filename, purpose)
    size = file.seek(0, 2)
    if size > settings.max_upload_bytes:
        raise TooLarge(
            f"the file has {size:,} bytes, at most {settings.max_upload_bytes:,} are taken", param="file"
        )
    with transaction(engine) as session:
        check_upload(Scope(session, team_id), size, is_last_look=False)
    found = inspect(file, settings)
    file_id = new_id("file")
    key = file_key(team_id, file_id)
    file.seek(0)
    stored = store.put_stream(key, iter(lambda: file.read(CHUNK_BYTES), b""), if_absent=True)
    row = File(
        id=file_id,
        team_id=team_id,
        filename=filename,
        purpose=purpose,
        bytes=stored.size,
        sha256=stored.sha256,
        storage_key=key,
        format=found.format,
        details=found.details,
    )
    try:
        with transaction(engine) as session:
            check_upload(Scope(session, team_id), stored.size, is_last_look=True)
            session.add(row)
            session.flush()
            check_team_stays(session, team_id)
            session.refresh(row)
    except Exception:
        _take_back(engine, store, team_id, key)
        raise
    return row


def discard_file(engine: Engine, store: ArtifactStore, team_id: str, file_id: str) -> None:
    """Delete a file that no unfinished job uses. Its row goes first: bytes without a row are never read."""
    with transaction(engine) as session:
        key = delete_file(Scope(session, team_id), file_id).storage_key
    try:
        store.delete(key)
    except StoreUnavailable as error:
        log.warning("bytes of a deleted file are left in the store", key=key, error=error.message)


def _check_form(filename: str, purpose: str) -> None:
    if purpose != PURPOSE:
        raise Invalid(f"purpose is {purpose!r}; this server takes {PURPOSE!r}", param="purpose")
    if not filename or len(filename) > _MAX_FILENAME or not filename.isprintable():
        raise Invalid(f"the file's name must have 1 to {_MAX_FILENAME} printable characters", param="file")


def _take_back(engine: Engine, store: ArtifactStore, team_id: str, key: str) -> None:
    """Remove the bytes again, unless the commit that seemed to fail went through."""
    with suppress(Exception):  # the first error is the one to tell; bytes without a row do no harm
        with transaction(engine) as session:
            is_kept = is_stored(Scope(session, team_id), key)
        if not is_kept:
            store.delete(key)
