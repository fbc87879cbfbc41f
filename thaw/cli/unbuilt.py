"""Commands that are announced and not built yet."""

from __future__ import annotations

import typer

from thaw.cli.exits import Exit
from thaw.cli.output import say

NAMES = ("team", "key")
TAKES_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


def not_yet(ctx: typer.Context) -> None:
    """Not yet: comes with a later version."""
    say(f"thaw: `thaw {ctx.info_name}` is not built yet")
    raise typer.Exit(Exit.REFUSED)
