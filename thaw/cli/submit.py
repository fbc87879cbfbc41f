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


def submit(
    ctx: typer.Context,
    job_file: JobFile,
    set_: Set = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it is over.")] = False,
) -> None:
    """Submit a job and print its id, alone, on standard output.

    training_file, validation_file and weights may be paths on this machine, relative to the job file: what
    they name is uploaded first, a folder of class folders as a zip. The same bytes are sent only once.
    """
    send(ctx, job_file, set_ or (), Kind.FINE_TUNING, watch=watch)


def send(ctx: typer.Context, job_file: Path, changes: Iterable[str], kind: Kind, *, watch: bool) -> None:
    """Upload what the job file names, submit it, print its id, and follow it where that is asked for."""
    spec = load(job_file, changes)
    with server(ctx) as thaw:
        for field, path in local_files(spec).items():
            spec[field] = upload(thaw, path).id
        is_extraction = kind is Kind.FEATURE_EXTRACTION
        job = thaw.jobs.extract(spec) if is_extraction else thaw.jobs.create(spec)
        line(job.id)
        if watch:
            end_with(follow(thaw, job.id, screen(sys.stderr)))
