"""The `thaw` command."""

from __future__ import annotations

import sys

from thaw.cli.app import build
from thaw.cli.exits import Exit
from thaw.errors import ServerRefused, ServerUnreachable, ThawError, UsageError


def main() -> None:
    """Run the command line. Every failure is one line on standard error and an exit code of its own."""
    try:
        build()(prog_name="thaw")
    except ThawError as error:
        sys.stderr.write(f"thaw: {error}\n")
        sys.exit(exit_code(error))
    except OSError as error:
        # A file or folder here that cannot be read or written; the server's failures are ThawErrors.
        sys.stderr.write(f"thaw: {error}\n")
        sys.exit(Exit.USAGE)


def exit_code(error: ThawError) -> Exit:
    """What a shell is told of an error."""
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, ServerRefused):
        return Exit.REFUSED
    if isinstance(error, ServerUnreachable):
        return Exit.UNREACHABLE
    return Exit.FAILED
