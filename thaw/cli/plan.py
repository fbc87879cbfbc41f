"""`thaw plan`: what a job would freeze and train, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from thaw.cli.output import Json, as_json, say, screen
from thaw.cli.plan_tree import drawn_plan
from thaw.cli.plan_words import remarks
from thaw.cli.session import server
from thaw.client import Thaw
from thaw.jobfile import load, local_files
from thaw.layers import Layers
from thaw.packing import packed

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change the job: hyperparameters.n_epochs=5. Repeatable."
    ),
]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job, in the words of the API.")]


def plan(ctx: typer.Context, job_file: JobFile, set_: Set = None, json: Json = False) -> None:
    """Show what a job would freeze and train, and what that takes. Nothing runs."""
    spec = load(job_file, set_ or ())
    with server(ctx) as thaw:
        _use_uploaded(thaw, spec)
        answer = thaw.plan(spec)
        order = [] if json else _parameter_order(thaw, spec)
    if json:
        as_json(answer)
        return
    console = screen()
    console.print(drawn_plan(answer, order))
    for remark in remarks(answer):
        console.print(remark)


def _use_uploaded(thaw: Thaw, spec: dict[str, Any]) -> None:
    """A plan needs no data: local files count where the server has them, and are left out where not."""
    for field, path in local_files(spec).items():
        with packed(path) as package:
            there = thaw.files.find(package.sha256)
        if there:
            spec[field] = there.id
        else:
            del spec[field]
            say(f"{field}: {path} is not uploaded yet; planned without its samples and classes")


def _parameter_order(thaw: Thaw, spec: Mapping[str, Any]) -> list[str]:
    """The parameters in the network's own order. A job's result is ordered as the network it began from."""
    name = str(spec["model"])
    while name.startswith("ftjob-"):
        name = thaw.jobs.get(name).model
    return Layers.read(thaw.models.layers(name)).parameter_names
