"""The audit log: a row for each write request, which nothing changes until it is old."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.batches import remove_some
from shared.db.clock import seconds_ago
from shared.db.keys import Caller
from shared.db.models import ApiKey, AuditEntry, Team
from shared.db.paging import Page, read_page
from shared.db.storable import comparable, storable

_BATCH = 1000


@dataclass(frozen=True)
class Audited:
    """A write request that was answered. `caller`: whose key came, good or not."""

    caller: Caller
    method: str
    route: str
    target: str | None
    client: str | None
    status: int
    request_id: str

    def as_text(self) -> dict[str, object]:
        """For the log, where the row cannot be written."""
        return asdict(self)


@dataclass(frozen=True)
class Sought:
    """Which entries are asked for: None leaves a field open; times are Unix seconds, `end` not included."""

    team_id: str | None = None
    key_id: str | None = None
    target: str | None = None
    start: int | None = None
    end: int | None = None


def write_down(session: Session, entry: Audited) -> None:
    """Add an entry, with the names of key and team as they are now."""
    who = entry.caller
    session.add(
        AuditEntry(
            key_id=who.key_id,
            key_name=session.scalars(select(ApiKey.name).where(ApiKey.id == who.key_id)).one(),
            role=who.role,
            team_id=who.team_id,
            team_name=session.scalars(select(Team.name).where(Team.id == who.team_id)).one(),
            method=entry.method,
            route=entry.route,
            target=storable(entry.target),
            client=entry.client,
            status=entry.status,
            request_id=entry.request_id,
        )
    )


def forget_entries(session: Session, *, older_than_s: float) -> int:
    """Remove some of the entries that are older; how many."""
    is_old = AuditEntry.at < seconds_ago(older_than_s)
    return remove_some(session, AuditEntry, is_old, order_by=AuditEntry.at, limit=_BATCH)


def list_audit(session: Session, sought: Sought, *, after: int | None, limit: int) -> Page[AuditEntry]:
    """The entries that fit, the newest first, from behind the one numbered `after`."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc())
    for column, wanted in (
        (AuditEntry.team_id, sought.team_id),
        (AuditEntry.key_id, sought.key_id),
        (AuditEntry.target, sought.target),
    ):
        if wanted is not None:
            query = query.where(column == comparable(wanted))
    if sought.start is not None:
        query = query.where(AuditEntry.at >= datetime.fromtimestamp(sought.start, UTC))
    if sought.end is not None:
        query = query.where(AuditEntry.at < datetime.fromtimestamp(sought.end, UTC))
    if after is not None:
        query = query.where(AuditEntry.id < after)
    return read_page(session, query, limit)
