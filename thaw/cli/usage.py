"""`thaw usage`: the hours for which slots were held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from thaw.cli.output import Json, as_json, say, table, when
from thaw.cli.session import server

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_FIGURES = ("slot-hours", "of them wasted", "jobs", "tries")


class By(StrEnum):
    """What usage is told apart by."""

    TEAM = "team"
    PERSON = "person"
    MODEL = "model"
    DAY = "day"


def usage(
    ctx: typer.Context,
    by: Annotated[
        list[By] | None, typer.Option(help="Told apart by this; may be given several times.")
    ] = None,
    start: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="From here on, in UTC; left out, 30 days.")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Up to here, in UTC; left out, now.")
    ] = None,
    team: Annotated[str | None, typer.Option(help="For admins: one team alone, by id or name.")] = None,
    json: Json = False,
) -> None:
    """The hours for which jobs held slots, by accelerator. A slot is a GPU, or a CPU process."""
    groups = [str(group) for group in by or ()]
    with server(ctx) as thaw:
        found = thaw.usage(groups, start=_unix(start), end=_unix(end), team=team)
    if json:
        as_json(found)
        return
    table((*groups, "accelerator", *_FIGURES), _rows(found["data"], groups), right=_FIGURES)
    say(f"from {when(found['start'])} to {when(found['end'])} UTC")


def _rows(found: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """A line a group; where there are several of one accelerator, also their sum. Jobs may be in several."""
    for row in found:
        own = (_cell(row[group]) for group in groups)
        counts = (row["n_jobs"], row["n_attempts"])
        yield (*own, row["accelerator"], _hours(row["slot_hours"]), _hours(row["wasted_slot_hours"]), *counts)
    lines = Counter(row["accelerator"] for row in found)
    for accelerator in sorted(name for name, n in lines.items() if n > 1):
        alike = [row for row in found if row["accelerator"] == accelerator]
        held, wasted = (sum(row[name] for row in alike) for name in ("slot_hours", "wasted_slot_hours"))
        yield ("all", *[""] * (len(groups) - 1), accelerator, _hours(held), _hours(wasted), "", "")


def _cell(value: Any) -> str:
    """A person or a team by name, anything else as it is."""
    return str(value["name"] if isinstance(value, Mapping) else value)


def _hours(hours: float) -> str:
    return f"{hours:,.2f}"


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp())
