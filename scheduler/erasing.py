"""Emptying the rows of teams that are gone, batch by batch, beside the sweep of the store."""

from __future__ import annotations

from threading import Event

import structlog
from sqlalchemy import Engine

from shared.db import erasing
from shared.db.steps import run_step


def erase_gone_teams(engine: Engine, stop: Event) -> None:
    """Until none has anything left, or `stop` is set: then the next round goes on. Raises DBAPIError.

    A team that another process is at is left to it.
    """
    due = run_step(engine, erasing.teams_to_erase)
    for team_id in due:
        while not stop.is_set() and run_step(engine, erasing.erase_some, team_id):
            pass
    left = run_step(engine, erasing.teams_to_erase) if due else ()
    for team_id in set(due).difference(left):
        structlog.stdlib.get_logger("scheduler.sweep").info("rows of a gone team are emptied", team=team_id)
