"""`thaw files`: data sets and weights on the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thaw.cli.output import Json, as_json, line, say, size, table, transfer, when
from thaw.cli.session import server
from thaw.client import Thaw
from thaw.packing import packed
from thaw.shapes import File


def put(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A zip, a Parquet file, safetensors, or a folder.")],
    json: Json = False,
) -> None:
    """Upload a file, or a folder of pictures as a zip. Prints its id. The same bytes are sent once."""
    with server(ctx) as thaw:
        file = upload(thaw, path)
    if json:
        as_json(dict(file.raw))
    else:
        line(file.id)


def list_files(ctx: typer.Context, json: Json = False) -> None:
    """The team's files, the newest first."""
    with server(ctx) as thaw:
        found = list(thaw.files.list())
    if json:
        as_json([dict(file.raw) for file in found])
        return
    rows = [(f.id, f.name, size(f.bytes), when(f.raw.get("created_at")), f.sha256[:12]) for f in found]
    table(("id", "name", "size", "created", "sha256"), rows, right=("size",))


def remove(ctx: typer.Context, file_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Remove a file that no job needs any more."""
    with server(ctx) as thaw:
        thaw.files.delete(file_id)


def upload(thaw: Thaw, path: Path) -> File:
    """Upload with a bar, and say what was done."""
    with packed(path) as package, transfer(package.name) as report:
        if package.left_out:
            say(f"{path}: {len(package.left_out)} hidden files left out, such as {package.left_out[0]}")
        file = thaw.files.send(package, report)
    verb = "is there already as" if file.reused else "uploaded as"
    say(f"{path} ({size(file.bytes)}) {verb} {file.id}")
    return file
