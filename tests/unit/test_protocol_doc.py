"""docs/protocol.md says of states and times what the code says."""

from __future__ import annotations

import inspect
import re
from enum import StrEnum
from pathlib import Path

import pytest

from shared.domain.job import (
    ALLOCATION_TRANSITIONS,
    ATTEMPT_TRANSITIONS,
    JOB_TRANSITIONS,
    SLOT_TRANSITIONS,
    AllocationState,
    AttemptState,
    JobState,
    SlotState,
)
from shared.settings import Settings

DOC = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
TABLES = {
    "Job": (JobState, JOB_TRANSITIONS),
    "Attempt": (AttemptState, ATTEMPT_TRANSITIONS),
    "Allocation": (AllocationState, ALLOCATION_TRANSITIONS),
    "Slot": (SlotState, SLOT_TRANSITIONS),
}


def rows_below(line: str) -> list[list[str]]:
    """The cells of the table that follows the line which begins so."""
    _, _, after = DOC.partition(f"\n{line}")
    table = after.split("\n\n")[1]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def movers(states: type[StrEnum]) -> dict[str, str]:
    """Who moves a row out of each state: the word in brackets behind the state, in the code."""
    source = inspect.getsource(states)
    return dict(re.findall(r'= \(?\s*"(\w+)".*?#[^\[\n]*(?:\[([^\]]*)\])?', source))


@pytest.mark.parametrize("name", TABLES)
def test_the_states_are_told_as_they_are(name: str) -> None:
    states, transitions = TABLES[name]
    told = {
        state: (who, set(re.findall(r"`(\w+)`", after)))
        for cell, who, after in rows_below(name)
        for state in re.findall(r"`(\w+)`", cell)
    }
    by = movers(states)
    assert told == {state: (by[state], set(transitions[state])) for state in states}


def test_the_times_are_told_as_they_are() -> None:
    told = {setting.strip("`"): float(seconds) for _, setting, seconds in rows_below("`THAW_TIME_SCALE`")}
    assert told == {name: Settings.model_fields[name].default for name in told}
    leases = {"lease_s", "renew_s", "hold_after_s", "kill_after_held_s", "unreachable_s", "offer_s", "gang_s"}
    assert set(told) == leases | {"reconcile_s", "node_heartbeat_s", "schedule_s"}
