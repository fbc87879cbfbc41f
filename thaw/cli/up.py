"""`thaw up`: the whole stack on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from thaw.errors import UsageError


def up(
    data_dir: Annotated[Path | None, typer.Option(help="All that the stack keeps. [.thaw]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 takes a free one. [8000]")] = None,
    workers: Annotated[int | None, typer.Option(help="Nodes. [1]")] = None,
    slots: Annotated[
        int | None, typer.Option(help="CPU slots of each node. [the GPUs found, else 2]")
    ] = None,
) -> None:
    """Run the whole stack here, in the foreground, until Ctrl-C.

    Prints `ready URL` when it is. The first admin key is in DIR/admin-key. Started again on the same DIR it
    carries on with every job.
    """
    if find_spec("devstack") is None:
        raise UsageError(
            "`thaw up` needs the server's parts, and only the client is installed here."
            " Run it from a checkout of Thaw after `make setup`."
        )
    given = {"--data-dir": data_dir, "--port": port, "--workers": workers, "--slots": slots}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    # In place of this process, so that a signal to it reaches the stack.
    os.execv(sys.executable, [sys.executable, "-m", "devstack", *options])  # noqa: S606  # no shell is wanted
