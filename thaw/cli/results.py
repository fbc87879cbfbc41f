"""What a job made, brought here: `thaw download`, and the models that `thaw predict` keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thaw.cache import cache_folder
from thaw.cli.checkpoints import download_checkpoint
from thaw.cli.output import line, say, size, transfer
from thaw.cli.rebuilding import rebuild_model
from thaw.cli.session import server
from thaw.cli.watch import JobId
from thaw.client import Thaw
from thaw.errors import UsageError
from thaw.shapes import Artifact

MODEL = "model.safetensors"
LOG = "logs.txt"
MODEL_FILES = ("model.json", MODEL)


def download(
    ctx: typer.Context,
    job_id: JobId,
    to: Annotated[Path | None, typer.Option(help="Folder to write to. [the job's id]")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Do not fetch the model: rebuild it from its base, bit for bit.")
    ] = False,
    base: Annotated[
        Path | None, typer.Option(help="With --full: the base's file. [kept here, else fetched]")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Not the result, but a checkpoint: newest, best, its step or its id.")
    ] = None,
) -> None:
    """Download a job's result, and print where it lies. Each file is checked by its sha256."""
    if base is not None and not full:
        raise UsageError("--base is what --full rebuilds the model from; give both, or neither")
    if checkpoint is not None and full:
        raise UsageError("--full rebuilds the result's model, and --checkpoint fetches no result; give one")
    folder = to or Path(job_id)
    with server(ctx) as thaw:
        if checkpoint is not None:
            line(str(download_checkpoint(thaw, job_id, checkpoint, folder)))
            return
        found = list(thaw.jobs.artifacts(job_id))
        if not found:
            raise UsageError(f"{job_id} has no result: it is {thaw.jobs.get(job_id).phase}")
        _check_whole(thaw, job_id, found)
        for artifact in found:
            if not (full and artifact.name == MODEL):
                fetch(thaw, job_id, artifact, folder)
        if full:
            rebuild_model(thaw, job_id, found, folder, base)
    line(str(folder))


def _check_whole(thaw: Thaw, job_id: str, found: list[Artifact]) -> None:
    """Shards and a log stand on the server before there is a result. Raises UsageError while it may come.

    Of a job that is over they are all that there is, which is said.
    """
    names = {artifact.name for artifact in found}
    shards = sum(name.startswith("activations/") for name in names)
    if len(names - {LOG}) > shards:
        return
    job = thaw.jobs.get(job_id)
    if not job.is_over:
        so_far = f"{shards} shards" if shards else ", ".join(sorted(names))
        raise UsageError(f"{job_id} has {so_far} so far and no whole result: it is {job.phase}")
    say(f"{job_id} has no result: it is {job.phase}, and this is what it has left")


def fetch_model(thaw: Thaw, job_id: str) -> Path:
    """The folder of the job's model, kept for the next time."""
    folder = cache_folder("models") / job_id
    found = {artifact.name: artifact for artifact in thaw.jobs.artifacts(job_id)}
    if missing := [name for name in MODEL_FILES if name not in found]:
        raise UsageError(f"{job_id} has no {' and no '.join(missing)}: only a job that succeeded has a model")
    for name in MODEL_FILES:
        fetch(thaw, job_id, found[name], folder)
    return folder


def fetch(thaw: Thaw, job_id: str, artifact: Artifact, folder: Path) -> None:
    """One artifact with a bar, and a remark when it is here."""
    with transfer(artifact.name) as report:
        path = thaw.jobs.download(job_id, artifact, folder, report)
    say(f"{path} ({size(artifact.bytes)})")
