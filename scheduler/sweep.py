"""python -m scheduler.sweep [--dry-run]: sweep the whole store now, or only print what would go and why.

Rows of teams that are gone are emptied first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from threading import Event

from sqlalchemy.exc import DBAPIError

from scheduler.erasing import erase_gone_teams
from scheduler.sweeper import Sweeper, Swept
from shared import logs
from shared.artifacts import StoreOptions, open_store
from shared.db.engine import make_engine
from shared.domain.errors import ThawError
from shared.domain.sweeping import GOES, Verdict
from shared.settings import Settings, get_settings

_SHOWN_UNKNOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 database or store failed, 2 usage, 3 another process sweeps just now."""
    parser = argparse.ArgumentParser(prog="python -m scheduler.sweep", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would go; remove nothing")
    asked = parser.parse_args(arguments)
    settings = get_settings()
    logs.configure(settings.log_level)
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    try:
        store = open_store(settings.store_url, StoreOptions.from_settings(settings))
        sweeper = Sweeper(engine, store, settings)
        if asked.dry_run:
            return _show(sweeper, settings)
        erase_gone_teams(engine, Event())
        return _sweep(sweeper)
    except (ThawError, DBAPIError) as error:
        sys.stderr.write(f"the sweep failed: {str(error).splitlines()[0]}\n")
        return 1
    finally:
        engine.dispose()


def _show(sweeper: Sweeper, settings: Settings) -> int:
    swept = Swept(is_whole=True)
    for stored, verdict in sweeper.judged():
        swept.add(stored, verdict)
        is_shown = verdict is Verdict.UNKNOWN and swept.files[verdict] <= _SHOWN_UNKNOWN
        if verdict in GOES or is_shown:
            _print(f"{verdict:<18} {stored.bytes:>14,}  {stored.key}")
    _print(
        f"{swept.n_gone:,} files of {swept.bytes_gone:,} bytes would go. {swept.files[Verdict.NEEDED]:,} are "
        f"needed; {swept.files[Verdict.YOUNG]:,} may go once they have been superfluous for "
        f"{settings.sweep_grace_s:g} s; {swept.files[Verdict.UNKNOWN]:,} belong to nothing in this database, "
        "and stay."
    )
    return 0


def _sweep(sweeper: Sweeper) -> int:
    done = Swept()
    while not done.is_whole:
        swept = sweeper.round()
        if swept is None:
            sys.stderr.write("another process sweeps just now; try again later\n")
            return 3
        done.files += swept.files
        done.bytes += swept.bytes
        done.is_whole = swept.is_whole
    _print(f"{done.n_gone:,} files of {done.bytes_gone:,} bytes are gone")
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
