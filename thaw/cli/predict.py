"""`thaw predict`: a job's model put to use on this machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from thaw.cli.output import Json, as_json, table
from thaw.cli.results import fetch_model
from thaw.cli.session import server
from thaw.cli.watch import JobId
from thaw.errors import UsageError
from thaw.torch_extra import needs_torch

Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the pictures that a model makes. [the current folder]"),
]


def predict(
    ctx: typer.Context,
    job_id: JobId,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures on this machine.")],
    out: Out = None,
    json: Json = False,
) -> None:
    """Ask a job's model about pictures, on this machine.

    A classifier says a picture's class or labels, and how probable they are. A model that makes pictures has
    them written: NAME-mask.png, NAME-reconstructed.png.
    """
    for image in images:
        if not image.is_file():
            raise UsageError(f"{image}: no such picture")
    with server(ctx) as thaw:
        folder = fetch_model(thaw, job_id)
    with needs_torch("to run the model here"):
        from thaw import torch  # noqa: PLC0415  # an extra: only this command needs it
    answers = torch.predict(torch.load_model(folder), images)
    written = _written(images, answers, out)
    if json:
        rows = zip(images, answers, written, strict=True)
        as_json([{"image": str(image), **answer.as_data(), **more} for image, answer, more in rows])
    else:
        _show(images, answers, written)


def _written(images: list[Path], answers: list[Any], out: Path | None) -> list[dict[str, str]]:
    """Saves what the answers hold of pictures, and says where each lies; all or none of them hold one."""
    suffix = answers[0].suffix
    if suffix is None:
        if out is not None:
            raise UsageError("--out is for models that make pictures, and this one makes none")
        return [{} for _ in answers]
    paths = [(out or Path()) / f"{image.stem}{suffix}.png" for image in images]
    path, count = Counter(paths).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} of the pictures would be written to {path}; ask about them one by one")
    for path, answer in zip(paths, answers, strict=True):
        answer.save(path)
    return [{"written": str(path)} for path in paths]


def _show(images: list[Path], answers: list[Any], written: list[dict[str, str]]) -> None:
    rows = [
        {"image": image, **answer.cells(), **more}
        for image, answer, more in zip(images, answers, written, strict=True)
    ]
    table(tuple(rows[0]), [tuple(row.values()) for row in rows])
