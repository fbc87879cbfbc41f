"""The first team and its admin key: `python -m api.bootstrap --key-file PATH`. Again, it changes nothing."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sqlalchemy import Engine

from shared.db.engine import make_engine, transaction
from shared.db.keys import find_caller, make_key, make_team
from shared.db.models import Team
from shared.db.teams import check_team_takes
from shared.domain.errors import Conflict
from shared.settings import get_settings

TEAM = "default"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api.bootstrap", description=__doc__)
    parser.add_argument("--key-file", type=Path, help="write an admin key here, unless it holds a valid one")
    parser.add_argument("--print", action="store_true", help="make a new admin key and print it")
    arguments = parser.parse_args()
    engine = make_engine(get_settings().database_url.get_secret_value())
    with transaction(engine) as session:
        make_team(session, TEAM)
    try:
        if arguments.key_file is not None:
            keep_key(engine, arguments.key_file)
        if arguments.print:
            sys.stdout.write(f"{new_admin_key(engine)}\n")
    except Conflict as error:
        sys.exit(error.message)


def keep_key(engine: Engine, path: Path) -> bool:
    """Have a valid admin key in the file, readable by its owner alone. Returns whether a new one was made."""
    if _is_valid(engine, path):
        path.chmod(0o600)
        return False
    _write_private(path, new_admin_key(engine) + "\n")
    return True


def new_admin_key(engine: Engine) -> str:
    """A new admin key of the default team. Raises Conflict while that is being deleted."""
    with transaction(engine) as session:
        team_id = make_team(session, TEAM)
        key = make_key(session, team_id, name="bootstrap", role="admin")
        check_team_takes(session, session.get_one(Team, team_id))
        return key


def _is_valid(engine: Engine, path: Path) -> bool:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    with transaction(engine) as session:
        found = find_caller(session, key)
    return found is not None and found.role == "admin"


def _write_private(path: Path, text: str) -> None:
    """The file whole or not at all, and never readable by others, not even for a moment."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
