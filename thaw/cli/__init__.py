"""The `thaw` command."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from thaw.cli.app import build
from thaw.cli.exits import Exit
from thaw.cli.output import say
from thaw.errors import ServerRefused, ServerUnreachable, ThawError, UsageError


def main() -> None:
    """Run the command line. Every failure is one line on standard error and an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal knows every character
    try:
        build()(prog_name="thaw")
    except ThawError as error:
        say(f"thaw: {error}")
        sys.exit(exit_code(error))
    except (OSError, UnicodeError) as error:
        # A file or a name here that cannot be read, or sent; the server's failures are ThawErrors.
        say(f"thaw: {error}")
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
