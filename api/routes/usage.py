"""/v1/usage: the hours for which slots were held."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import CallerDep, SessionDep
from api.errors import documented
from api.query import Moment
from api.schemas import unix
from api.usage_schemas import NamedView, UsageRow, UsageView
from shared.db.clock import now
from shared.db.teams_seen import team_asked_for
from shared.db.usage import used
from shared.domain.errors import Invalid
from shared.domain.usage import Group, Named, Used, check_groups, window

router = APIRouter(prefix="/v1/usage", tags=["usage"])

_MOST_ROWS = 10_000
_GroupBy = Annotated[
    list[Group], Query(description="one or several, each as a parameter of its own; their order is the rows'")
]
_Team = Annotated[
    str | None,
    Query(max_length=200, description="an id or a name; who is no admin sees the own team only"),
]


@router.get("", responses=documented(404))
def usage(
    session: SessionDep,
    caller: CallerDep,
    group_by: _GroupBy = [],  # noqa: B006 - FastAPI copies it
    start: Moment = None,
    end: Moment = None,
    team: _Team = None,
) -> UsageView:
    """What jobs held, by team, person, model and day; always by accelerator. Left out: the last 30 days.

    Counted is what was really held: each slot of each try, from the claim to the end, or to now. A key of
    role admin sees all teams, or the one that it names.
    """
    check_groups(group_by)
    seen = team_asked_for(session, caller, team)
    current = now(session)
    asked = window(start, end, group_by, current)
    rows = used(session, asked, group_by, team_id=seen, now=current, limit=_MOST_ROWS + 1)
    if len(rows) > _MOST_ROWS:
        raise Invalid(
            f"this comes to more than {_MOST_ROWS:,} rows; group by fewer, or ask for a shorter time",
            param="group_by",
            code="too_many_rows",
        )
    return UsageView(
        start=unix(asked.start), end=unix(asked.end), group_by=group_by, data=[_row(row) for row in rows]
    )


def _row(held: Used) -> UsageRow:
    return UsageRow(
        team=_named(held.team),
        person=_named(held.person),
        model=held.model,
        day=held.day,
        accelerator=held.accelerator,
        slot_hours=_hours(held.slot_seconds),
        wasted_slot_hours=_hours(held.wasted_slot_seconds),
        n_jobs=held.n_jobs,
        n_attempts=held.n_attempts,
    )


def _named(of: Named | None) -> NamedView | None:
    return NamedView(id=of.id, name=of.name) if of else None


def _hours(seconds: Decimal) -> float:
    """To a hundredth of a second, or better."""
    return round(float(seconds / 3600), 6)
