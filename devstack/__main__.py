"""The command line of the stack: `python -m devstack`, which is what `thaw up` runs."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack.binaries import BinaryNotFound
from devstack.folder import FolderInUse, UnusableFolder
from devstack.processes import PartFailed
from devstack.up import BadOption, Options, up

_FAILED, _USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the stack up in the foreground. 0 after a stop that was asked for, 2 on a bad option."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        up(_options(argv))
    except (BadOption, FolderInUse, UnusableFolder) as error:
        sys.stderr.write(f"thaw up: {error}\n")
        return _USAGE
    except (PartFailed, BinaryNotFound, OSError, RuntimeError) as error:
        sys.stderr.write(f"thaw up: {error}\n")
        return _FAILED
    return 0


def _options(argv: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="thaw up", description="The whole stack on this machine.")
    parser.add_argument("--data-dir", type=Path, default=Path(".thaw"), help="all that the stack keeps")
    parser.add_argument("--port", type=int, default=8000, help="port of the API; 0 takes a free one")
    parser.add_argument("--workers", type=int, default=1, help="nodes")
    parser.add_argument("--slots", type=int, help="CPU slots of each node; left out: the GPUs found, else 2")
    found = parser.parse_args(argv)
    return Options(found.data_dir, found.port, found.workers, found.slots)


if __name__ == "__main__":
    sys.exit(main())
