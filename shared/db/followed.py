"""A job's events: pages of them, and what came since, for those who follow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Integer, Text, column, select, true, values
from sqlalchemy.orm import Session, aliased

from shared.db.models import Event, Job
from shared.db.paging import Order, Page, read_page
from shared.db.scope import Scope
from shared.domain.job import FINAL_JOB_STATES


class Cursor(NamedTuple):
    """A place in a job's events: behind the one numbered `seq`."""

    job_id: str
    seq: int


@dataclass(frozen=True)
class News:
    """Events of one job in order. `is_last`: the job is over and these reach its last event."""

    events: list[Event]
    is_last: bool


def list_events(scope: Scope, job_id: str, *, after: int | None, limit: int, order: Order) -> Page[Event]:
    """The events of a job from behind the one numbered `after`."""
    scope.get(Job, job_id)
    query = scope.select_of_job(Event, job_id)
    if after is not None:
        query = query.where(Event.seq > after if order == "asc" else Event.seq < after)
    return read_page(scope.session, query.order_by(Event.seq if order == "asc" else Event.seq.desc()), limit)


def news_of(session: Session, cursors: Collection[Cursor], limit: int) -> dict[Cursor, News]:
    """What follows each place, `limit` events at most, where anything does or the job is over.

    Whoever asks was shown by a `Scope` that these jobs are theirs.
    """
    if not cursors:
        return {}
    states = select(Job.id, Job.state, Job.n_events).where(Job.id.in_({c.job_id for c in cursors}))
    heads = {id: (state in FINAL_JOB_STATES, last) for id, state, last in session.execute(states)}
    events = _events_behind(session, cursors, limit)
    news: dict[Cursor, News] = {}
    for cursor in cursors:
        new = events.get(cursor, [])
        is_over, last = heads[cursor.job_id]
        is_last = is_over and (new[-1].seq if new else cursor.seq) >= last
        if new or is_last:
            news[cursor] = News(new, is_last)
    return news


def _events_behind(session: Session, cursors: Collection[Cursor], limit: int) -> dict[Cursor, list[Event]]:
    asked = values(column("job_id", Text), column("seq", Integer), name="asked").data(list(cursors))
    newer = (
        select(Event)
        .where(Event.job_id == asked.c.job_id, Event.seq > asked.c.seq)
        .order_by(Event.seq)
        .limit(limit)
        .lateral("newer")
    )
    event = aliased(Event, newer)
    query = select(asked.c.job_id, asked.c.seq, event).join(newer, true()).order_by(event.seq)
    found: dict[Cursor, list[Event]] = {}
    for job_id, seq, row in session.execute(query):
        found.setdefault(Cursor(job_id, seq), []).append(row)
    return found
