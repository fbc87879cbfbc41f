"""`thaw checkpoints`, and what `thaw download --checkpoint` brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from thaw.checkpoints import files_of
from thaw.cli.output import Json, as_json, say, size, table, transfer, when
from thaw.cli.session import server
from thaw.cli.watch import JobId
from thaw.client import Thaw


def checkpoints(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """The checkpoints that a job keeps, the newest first."""
    with server(ctx) as thaw:
        found = list(thaw.jobs.checkpoints(job_id))
    if json:
        as_json(found)
        return
    names = list(dict.fromkeys(name for one in found for name in _figures(one)))
    rows = (
        (
            one["step_number"],
            one["epoch"],
            one["attempt"],
            ", ".join(_marks(one)),
            size(one["bytes"]),
            *(_figures(one).get(name) for name in names),
            when(one["created_at"]),
            one["id"],
        )
        for one in found
    )
    shown = [name.replace("_", " ") for name in names]
    numbers = ("step", "epochs", "try", "size", *shown)
    table(("step", "epochs", "try", "", "size", *shown, "created", "id"), rows, right=numbers)


def download_checkpoint(thaw: Thaw, job_id: str, wanted: str, folder: Path) -> Path:
    """A checkpoint's files in a folder of its own below `folder`, the manifest last."""
    checkpoint = thaw.checkpoints.find(job_id, wanted)
    target = folder / f"step-{checkpoint['step_number']:06d}"
    for file in files_of(checkpoint):
        with transfer(file.name) as report:
            path = thaw.checkpoints.download(job_id, checkpoint, file, target, report)
        say(f"{path} ({size(file.bytes)})")
    thaw.checkpoints.download_manifest(job_id, checkpoint, target)
    return target


def _marks(checkpoint: Mapping[str, Any]) -> Iterator[str]:
    for mark in ("newest", "best", "damaged"):
        if checkpoint[f"is_{mark}"]:
            yield mark


def _figures(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """What the validation set said, or training where there is none."""
    figures = {name: value for name, value in checkpoint["metrics"].items() if value is not None}
    told = {name: value for name, value in figures.items() if name.startswith("validation_")}
    told = told or {name: value for name, value in figures.items() if name.startswith("train_")}
    return {name: f"{value:.4f}" for name, value in told.items()}
