"""Several jobs followed at once: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import count

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from thaw.client import Thaw
from thaw.figures import Figures, clock
from thaw.shapes import Job

LOOK_EVERY_S = 0.5


def follow_all(thaw: Thaw, ids: Mapping[str, str], console: Console) -> dict[str, Job]:
    """Show the jobs, given by name, until all are over, and return them as they ended."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        lines = Lines(console)
        for _ in count():
            jobs = {name: thaw.jobs.get(job_id) for name, job_id in ids.items()}
            if console.is_terminal:
                live.update(drawn(jobs), refresh=True)
            else:
                lines.show(jobs)
            if all(job.is_over for job in jobs.values()):
                break
            time.sleep(LOOK_EVERY_S)
    return jobs


def drawn(jobs: Mapping[str, Job]) -> Table:
    """A row a job: state, epoch, step, loss, the task's own figure, time left."""
    table = Table("job", "state", "", "epoch", "step", "loss", "training", "held out", "left", box=None)
    for name, job in jobs.items():
        f = Figures.of(job)
        table.add_row(
            name,
            f.phase,
            ProgressBar(total=1.0, completed=f.done, width=16),
            f"{f.epoch}/{f.n_epochs}" if f.epoch else "",
            f"{f.step}/{f.total_steps}" if f.epoch else "",
            "" if f.loss is None else f"{f.loss:.3f}",
            str(f.main or ""),
            str(f.held_out or ""),
            "" if f.eta_s is None else clock(f.eta_s),
        )
    return table


class Lines:
    """For a log: a line when a job enters another phase or epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._last: dict[str, tuple[str, int | None]] = {}

    def show(self, jobs: Mapping[str, Job]) -> None:
        for name, job in jobs.items():
            figures = Figures.of(job)
            where = (figures.phase, figures.epoch)
            if self._last.get(name) != where:
                self._last[name] = where
                at = time.monotonic() - self._began
                self._console.print(f"{at:6.1f}s  {name:<26} {'  '.join(figures.parts())}")
