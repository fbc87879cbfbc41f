"""What every command begins with: the server that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from thaw.cli.output import line
from thaw.client import Thaw
from thaw.config import connection


@dataclass(frozen=True)
class Asked:
    """The options before the command."""

    url: str | None
    key_file: Path | None
    profile: str | None


def _tell_version(asked: bool) -> None:
    if asked:
        line(metadata.version("thaw"))
        raise typer.Exit


def remember(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(help="Address of the server, before THAW_URL.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File that holds the API key, before THAW_API_KEY.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of the configuration file.")] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="The version of this command."),
    ] = False,
) -> None:
    """Fine-tune PyTorch vision models: say what stays frozen, and have it proved.

    THAW_URL and THAW_API_KEY say where and who. Exit codes: 0 done, 1 the job failed, 2 usage,
    3 refused by the server, 4 the server cannot be reached.
    """
    ctx.obj = Asked(url, key_file, profile)


def server(ctx: typer.Context) -> Thaw:
    """The client for what was asked for. Raises UsageError when no server or key is known."""
    asked: Asked = ctx.obj
    found = connection(asked.url, asked.key_file, asked.profile)
    return Thaw(found.url, found.api_key)
