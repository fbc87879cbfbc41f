"""`thaw team quota`: what a team is owed, and what its jobs may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Annotated, Any

import typer

from thaw.cli.output import Json, as_json, line, size, table
from thaw.cli.session import server
from thaw.cli.teams import TeamName
from thaw.errors import UsageError

_NONE = "none"
_QUOTA = ("nominal_quota", "borrowing_limit", "lending_limit")
_WORDS = {
    "max_queued_jobs": "jobs that wait",
    "max_storage_bytes": "bytes kept",
    "max_duration_s": "seconds a job runs",
    "max_devices": "devices of a job",
    "accelerators": "accelerators",
    "keep_jobs_days": "days a job is kept",
    "keep_files_days": "days a file is kept",
}


def _of_type(name: str, words: str) -> Any:
    return typer.Option(name, metavar="TYPE=SLOTS", help=f"{words} Repeatable.")


def show(ctx: typer.Context, team: TeamName, json: Json = False) -> None:
    """The quotas, the weight and the limits of a team, and what it holds."""
    with server(ctx) as thaw:
        found = thaw.quotas.get(team)
    _tell(found, json)


def set_terms(
    ctx: typer.Context,
    team: TeamName,
    weight: Annotated[float | None, typer.Option(help="Its part of what is borrowed; 1 at first.")] = None,
    nominal: Annotated[
        list[str] | None, _of_type("--nominal", "Guaranteed slots of an accelerator type; none: no quota.")
    ] = None,
    borrow: Annotated[
        list[str] | None, _of_type("--borrow", "Most that is borrowed beyond them; none: no limit.")
    ] = None,
    lend: Annotated[
        list[str] | None, _of_type("--lend", "Most of them that is lent; none: all that is idle.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="max_queued_jobs, max_storage_bytes, max_duration_s, max_devices, keep_jobs_days, "
            "keep_files_days (a number, or none), accelerators (names with commas between, or none). "
            "Repeatable.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """For admins: change a team's quotas, weight and limits. What is not named stays as it is.

    `thaw team quota set vision --nominal "NVIDIA H100 80GB HBM3=16" --weight 2 --limit max_devices=8`
    """
    with server(ctx) as thaw:
        terms = _as_set(thaw.quotas.get(team))
        if weight is not None:
            terms["weight"] = _finite(weight)
        for field, given in zip(_QUOTA, (nominal, borrow, lend), strict=True):
            _change_quotas(terms["quotas"], field, given or ())
        _change_limits(terms["limits"], limit or ())
        quotas = [{"accelerator": type, **quota} for type, quota in terms["quotas"].items()]
        found = thaw.quotas.replace(team, {**terms, "quotas": quotas})
    _tell(found, json)


def _as_set(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, without what the team has just now."""
    owned = [quota for quota in shown["quotas"] if quota["nominal_quota"] is not None]
    quotas = {quota["accelerator"]: {field: quota[field] for field in _QUOTA} for quota in owned}
    return {"weight": shown["weight"], "quotas": quotas, "limits": dict(shown["limits"])}


def _change_quotas(quotas: dict[str, dict[str, Any]], field: str, given: Sequence[str]) -> None:
    for text in given:
        accelerator, slots = _pair(text)
        if field == _QUOTA[0] and slots is None:
            quotas.pop(accelerator, None)
        elif field == _QUOTA[0]:
            quotas.setdefault(accelerator, dict.fromkeys(_QUOTA))[field] = slots
        elif accelerator in quotas:
            quotas[accelerator][field] = slots
        else:
            known = ", ".join(quotas) or "none"
            raise UsageError(
                f"the team has no quota of {accelerator!r} that {field} could limit; it has: {known}. "
                f"Give --nominal {accelerator}=SLOTS too"
            )


def _change_limits(limits: dict[str, Any], given: Sequence[str]) -> None:
    for text in given:
        name, equals, value = text.partition("=")
        if name not in _WORDS or not equals:
            raise UsageError(f"--limit {text!r} is not NAME=VALUE with one of {', '.join(_WORDS)}")
        if name == "accelerators":
            limits[name] = None if value == _NONE else [one.strip() for one in value.split(",")]
        else:
            limits[name] = _number(text, value)


def _pair(text: str) -> tuple[str, int | None]:
    accelerator, equals, slots = text.rpartition("=")
    if not equals or not accelerator:
        raise UsageError(f"{text!r} is not TYPE=SLOTS, such as cpu=16")
    return accelerator, _number(text, slots)


def _finite(weight: float) -> float:
    if not isfinite(weight):
        raise UsageError(f"--weight {weight} is no weight: give a number greater than 0")
    return weight


def _number(text: str, value: str) -> int | None:
    if value == _NONE:
        return None
    if not value.isdecimal():
        raise UsageError(f"{text!r} ends in no whole number; {_NONE!r} takes a limit away")
    return int(value)


def _tell(found: Mapping[str, Any], json: bool) -> None:
    if json:
        as_json(found)
        return
    line(f"{found['team']}: weight {found['weight']:g}")
    columns = ("accelerator", "nominal", "may borrow", "lends", "held", "borrowed", "held on average")
    rows = [
        (
            quota["accelerator"],
            "no quota" if quota["nominal_quota"] is None else quota["nominal_quota"],
            _or_idle(quota["borrowing_limit"]),
            "" if quota["nominal_quota"] is None else _or_idle(quota["lending_limit"]),
            quota["held"],
            quota["borrowed"],
            f"{quota['held_on_average']:.1f}",
        )
        for quota in found["quotas"]
    ]
    if rows:
        table(columns, rows, right=columns[1:])
    has = {"max_queued_jobs": found["waiting_jobs"], "max_storage_bytes": size(found["stored_bytes"])}
    limits = ((words, _limit(found["limits"][name]), has.get(name)) for name, words in _WORDS.items())
    table(("at most", "limit", "now"), limits)


def _or_idle(limit: int | None) -> str:
    return "what is idle" if limit is None else str(limit)


def _limit(value: Any) -> str:
    if value is None:
        return "no limit"
    return ", ".join(value) if isinstance(value, list) else f"{value:,}"
