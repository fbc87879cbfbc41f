"""Which migration the database stands at."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session


def current_revision(session: Session) -> str | None:
    """The revision that Alembic wrote; None in a database that was never migrated."""
    if session.scalar(text("select to_regclass('alembic_version')")) is None:
        return None
    found: str | None = session.scalar(text("select version_num from alembic_version"))
    return found
