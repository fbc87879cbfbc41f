"""`thaw watch`: a job as it goes, until it is over."""

from __future__ import annotations

import json as json_lines
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from thaw.cli.exits import Exit
from thaw.cli.failure import last_words
from thaw.cli.output import Json, line, say, screen
from thaw.cli.session import server
from thaw.client import Thaw
from thaw.errors import ServerRefused, ServerUnreachable, ThawError
from thaw.figures import Figures
from thaw.following import passes
from thaw.shapes import Event, Job

_LOOK_EVERY_S = 0.5
# Without a terminal, figures that change each second would only fill a log.
_LINE_EVERY_S = 5.0

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job, ftjob-... or fxjob-...")]


def watch(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """Follow a job until it is over. Exit 1 unless it succeeded. Ctrl-C stops the watching, not the job."""
    with server(ctx) as thaw:
        if json:
            with _said_that_it_goes_on(job_id):
                for event in thaw.jobs.events(job_id):
                    line(json_lines.dumps(dict(event.raw), ensure_ascii=False))
            job = thaw.jobs.get(job_id)
        else:
            job = follow(thaw, job_id, screen())
    end_with(job)


def follow(thaw: Thaw, job_id: str, console: Console) -> Job:
    """Show the job on `console` until it is over, and return it. On Ctrl-C it says that the job goes on."""
    with _said_that_it_goes_on(job_id), _display(console) as show:
        for news in _news(thaw, job_id):
            show(news)
    return thaw.jobs.get(job_id)


@contextmanager
def _said_that_it_goes_on(job_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"stopped watching; the job goes on. `thaw cancel {job_id}` would end it.")
        raise typer.Exit(130) from None


def end_with(job: Job) -> None:
    """Leave with the exit code that the job's end calls for."""
    if job.status != "succeeded":
        for told in last_words(job):
            say(told)
        raise typer.Exit(Exit.FAILED)


@dataclass(frozen=True)
class _End:
    """The follower is done, or could not go on."""

    error: ThawError | None


def _news(thaw: Thaw, job_id: str) -> Iterator[Event | Job]:
    """The job's events as they come, and between them the job with its latest figures."""
    queue: Queue[Event | _End] = Queue()
    Thread(target=_pass_on, args=(thaw, job_id, queue), daemon=True).start()
    next_look = time.monotonic()
    while True:
        with suppress(Empty):
            item = queue.get(timeout=_LOOK_EVERY_S)
            if isinstance(item, _End):
                break
            yield item
        if time.monotonic() >= next_look:
            yield from _figures(thaw, job_id)
            next_look = time.monotonic() + _LOOK_EVERY_S
    if item.error:
        raise item.error
    yield from _figures(thaw, job_id)


def _figures(thaw: Thaw, job_id: str) -> Iterator[Job]:
    """The job, where the server can be reached; for how long to bear it if not, the follower knows."""
    try:
        yield thaw.jobs.get(job_id)
    except (ServerUnreachable, ServerRefused) as error:
        if not passes(error):
            raise


def _pass_on(thaw: Thaw, job_id: str, queue: Queue[Event | _End]) -> None:
    try:
        for event in thaw.jobs.events(job_id):
            queue.put(event)
    except ThawError as error:
        queue.put(_End(error))
    else:
        queue.put(_End(None))


Show = Callable[[Event | Job], None]


def _display(console: Console) -> AbstractContextManager[Show]:
    return _bar(console) if console.is_terminal else nullcontext(_Lines(console).show)


class _Lines:
    """One line an event, and now and then one with the figures."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[str] = []
        self._next_at = 0.0

    def show(self, news: Event | Job) -> None:
        if isinstance(news, Event):
            self._console.print(event_line(news))
            return
        figures = Figures.of(news)
        now = time.monotonic()
        is_due = now >= self._next_at or news.is_over
        if figures.has_begun and figures.parts() != self._shown and is_due:
            self._shown, self._next_at = figures.parts(), now + _LINE_EVERY_S
            self._console.print("  " + "  ".join(figures.parts()))


@contextmanager
def _bar(console: Console) -> Iterator[Show]:
    """A bar with the figures that stays below the events."""
    columns = (BarColumn(bar_width=30), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def show(news: Event | Job) -> None:
            if isinstance(news, Event):
                console.print(event_line(news))
            else:
                figures = Figures.of(news)
                progress.update(task, completed=figures.done, description="  ".join(figures.parts()))

        yield show


def event_line(event: Event) -> str:
    """An event as a line: when, what."""
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{time.strftime('%H:%M:%S', time.localtime(event.created_at))} {level}{event.message}"
