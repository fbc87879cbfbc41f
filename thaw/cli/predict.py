"""`thaw predict`: a job's model put to use on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thaw.cli.output import Json, as_json, table
from thaw.cli.results import fetch_model
from thaw.cli.session import server
from thaw.cli.watch import JobId
from thaw.errors import UsageError
from thaw.torch_extra import needs_torch

if TYPE_CHECKING:
    from thaw.torch import Answer


def predict(
    ctx: typer.Context,
    job_id: JobId,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures on this machine.")],
    json: Json = False,
) -> None:
    """Ask a job's model about pictures, on this machine: their class or labels, and how probable they are."""
    for image in images:
        if not image.is_file():
            raise UsageError(f"{image}: no such picture")
    with server(ctx) as thaw:
        folder = fetch_model(thaw, job_id)
    answers = _predict(folder, images)
    if json:
        as_json([{"image": str(image), **answer.as_data()} for image, answer in answers])
    else:
        rows = [{"image": image, **answer.cells()} for image, answer in answers]
        table(tuple(rows[0]), [tuple(row.values()) for row in rows])


def _predict(folder: Path, images: list[Path]) -> list[tuple[Path, Answer]]:
    with needs_torch("to run the model here"):
        from thaw import torch  # noqa: PLC0415  # an extra: only this command needs it
    model = torch.load_model(folder)
    return list(zip(images, torch.predict(model, images), strict=True))
