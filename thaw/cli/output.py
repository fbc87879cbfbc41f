"""What goes to the screen: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from thaw.downloads import Progress as Report

# A pipe has no width; a table that is cut at 80 columns is of no use there.
_PIPE_WIDTH = 240
_IDS = frozenset({"id", "key", "job", "object"})

Json = Annotated[bool, typer.Option("--json", help="The server's answer as JSON.")]


class _Screen(Console):
    """What others have chosen, such as a name that somebody asked for, must not steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def screen(stream: TextIO | None = None) -> Console:
    """A console on standard output or `stream` that shows every text as it is."""
    out = stream or sys.stdout
    width = None if out.isatty() else _PIPE_WIDTH
    return _Screen(file=out, markup=False, emoji=False, highlight=False, width=width)


def visible(text: str) -> str:
    r"""The text with its control characters spelled out, as \x1b; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


def say(text: str) -> None:
    """A remark for the person, on standard error."""
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()


def line(text: str) -> None:
    """A line of the result, on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def as_json(value: Any) -> None:
    """The result as JSON."""
    line(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """A table on standard output; `right` are the columns of numbers.

    Ids stay whole, to be copied, unless they would take half of the screen.
    """
    console = screen()
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    for place, column in enumerate(columns):
        side: JustifyMethod = "right" if column in right else "left"
        longest = max((len(row[place]) for row in texts), default=0)
        kept = longest if column in _IDS and 2 * longest < console.width else None
        drawn.add_column(column, justify=side, overflow="fold", min_width=kept)
    for row in texts:
        drawn.add_row(*row)
    console.print(drawn)


def when(seconds: float | None) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


def size(n_bytes: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


@contextmanager
def transfer(name: str) -> Iterator[Report]:
    """A bar on standard error while bytes move; nothing where there is no terminal."""
    console = screen(sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name)
        yield lambda done, total: bar.update(task, completed=done, total=total)
