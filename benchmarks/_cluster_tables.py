"""What a simulation found, as tables: the ways of sharing side by side, and each team that was backlogged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

WANTED_ERROR, WANTED_PLACED = 2.0, 97.0

_WORDS = (
    "\nused: of all GPUs, from the first second on; error: the worst share error, in percentage points of "
    "the cluster, of so many teams that were backlogged all along; placed: GPUs, of what "
    "first-fit-decreasing places; waiting: the most jobs at once; pass: p50 / p99 of one scheduling pass"
)


def show(result: dict[str, Any], setting: str) -> None:
    """`result`: what is written of one cluster, fair share with and without quotas first of its policies."""
    rows, console = result["policies"], Console()
    console.print(figures(result, rows))
    console.print(_WORDS)
    console.print(waited(rows))
    console.print(by_team(rows[0]))
    console.print(f"\n{setting}; a part of a GPU counts as one; {result['gangs']:,} jobs are gangs.")
    for each in rows[:2]:
        console.print(f"{each['policy']}: {verdict(each)}")
    console.print()


def figures(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Table:
    title = (
        f"{result['cluster']}: {result['nodes']:,} nodes, {result['gpus']:,} GPUs, "
        f"{result['jobs']:,} jobs in {result['hours']:g} h"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for words in ("used", "error", "teams", "placed", "preempted", "waiting", "pass, ms"):
        table.add_column(words, justify="right")
    for each in rows:
        table.add_row(
            each["policy"],
            f"{each['utilisation_percent']:.1f}%",
            points(each["share_error_points"]),
            str(each["backlogged_teams"]),
            f"{each['placed_percent_of_ffd']:.1f}%",
            f"{each['preemptions']:,}",
            f"{each['most_waiting']:,}",
            f"{each['pass_ms']['p50']:.0f} / {each['pass_ms']['p99']:.0f}",
        )
    return table


def waited(rows: Sequence[dict[str, Any]]) -> Table:
    title = "\nminutes waited, p50 / p99, by GPUs; 2 x 8: a gang on 2 nodes with 8 each"
    table = Table("", title=title, title_justify="left", box=None, pad_edge=False)
    for size in rows[0]["wait_s"]:
        table.add_column(size, justify="right")
    for each in rows:
        table.add_row(
            each["policy"],
            *(f"{one['p50'] / 60:.0f} / {one['p99'] / 60:.0f}" for one in each["wait_s"].values()),
        )
    return table


def by_team(fair_share: dict[str, Any]) -> Table:
    title = f"\n{fair_share['policy']}, % of the cluster"
    table = Table("team", title=title, title_justify="left", box=None, pad_edge=False)
    for words in ("from hour", "held", "fair", "error"):
        table.add_column(words, justify="right")
    for each in fair_share["shares"]:
        values = (each["held_percent"], each["fair_percent"], each["error_points"])
        table.add_row(each["team"], f"{each['from_h']:g}", *(f"{value:.2f}" for value in values))
    return table


def verdict(found: dict[str, Any]) -> str:
    """Whether what is wanted of fair share came out."""
    error, placed = found["share_error_points"], found["placed_percent_of_ffd"]
    if error is None:
        return (
            "MISSED: no team was backlogged all along a half-life, so there is no share error; raise --load"
        )
    reached = error <= WANTED_ERROR and placed >= WANTED_PLACED
    return (
        f"{'reached' if reached else 'MISSED'}: share error {error:.2f} points (wanted: at most "
        f"{WANTED_ERROR:g}), placed {placed:.1f}% of first-fit-decreasing (wanted: at least "
        f"{WANTED_PLACED:g}%)"
    )


def points(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f}"
