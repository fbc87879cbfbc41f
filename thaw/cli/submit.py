"""`thaw submit`: a job file, and the data it names, to the server."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from thaw.cli.files import upload
from thaw.cli.output import line, screen
from thaw.cli.plan import JobFile, Set
from thaw.cli.session import server
from thaw.cli.watch import end_with, follow
from thaw.jobfile import load, local_files
from thaw.kinds import Kind

Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Name of the submission: sent again under it, it makes no second job. Else a new one.",
    ),
]


def submit(
    ctx: typer.Context,
    job_file: JobFile,
    set_: Set = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it is over.")] = False,
    idempotency_key: Key = None,
) -> None:
    """Submit a job and print its id, alone, on standard output.

    training_file, validation_file and weights may be paths on this machine, relative to the job file: what
    they name is uploaded first, a folder of class folders as a zip. The same bytes are sent only once.
    """
    send(ctx, job_file, set_ or (), Kind.FINE_TUNING, idempotency_key, watch=watch)


def send(
    ctx: typer.Context, job_file: Path, changes: Iterable[str], kind: Kind, key: str | None, *, watch: bool
) -> None:
    """Upload what the job file names, submit it, print its id, and follow it where that is asked for."""
    spec = load(job_file, changes)
    with server(ctx) as thaw:
        for field, path in local_files(spec).items():
            spec[field] = upload(thaw, path).id
        create = thaw.jobs.extract if kind is Kind.FEATURE_EXTRACTION else thaw.jobs.create
        job = create(spec, idempotency_key=key)
        line(job.id)
        if watch:
            end_with(follow(thaw, job.id, screen(sys.stderr)))
