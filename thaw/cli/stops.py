"""The commands that ask a job to stop, and to go on."""

from __future__ import annotations

from typing import Annotated

import typer

from thaw.cli.output import Json, as_json, line
from thaw.cli.session import server
from thaw.cli.watch import JobId
from thaw.figures import in_words
from thaw.jobfile import changes_in
from thaw.shapes import Job

Change = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Go on otherwise: hyperparameters.n_epochs=5, hyperparameters.learning_rate=0.003, "
        "max_duration_s=3600, priority=1. Repeatable.",
    ),
]


def cancel(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """Ask a job to end. A running one stops at its next step."""
    with server(ctx) as thaw:
        job = thaw.jobs.cancel(job_id)
    _tell(job, json)


def pause(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """Ask a job to leave its slots for now. A running one stops at its next step and keeps a checkpoint."""
    with server(ctx) as thaw:
        job = thaw.jobs.pause(job_id)
    _tell(job, json)


def resume(ctx: typer.Context, job_id: JobId, set_: Change = None, json: Json = False) -> None:
    """Let a paused job go on from its last checkpoint. It waits behind the others; --set changes it."""
    changes = changes_in(set_ or ())
    with server(ctx) as thaw:
        job = thaw.jobs.resume(job_id, changes)
    _tell(job, json)


def preempt(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """For admins: have a job hand its slots to others. It waits again, with its checkpoint."""
    with server(ctx) as thaw:
        job = thaw.jobs.preempt(job_id)
    _tell(job, json)


def _tell(job: Job, json: bool) -> None:
    if json:
        as_json(dict(job.raw))
    else:
        line(f"{job.id} {in_words(job)}")
