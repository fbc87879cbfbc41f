"""The tables of transitions, and the one setter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product

import pytest

from shared.domain.errors import IllegalTransition
from shared.domain.job import (
    AFTER_STOP,
    ALLOCATION_TRANSITIONS,
    ATTEMPT_TRANSITIONS,
    FINAL_JOB_STATES,
    JOB_TRANSITIONS,
    SLOT_TRANSITIONS,
    STOP_GRACE_S,
    AllocationState,
    AttemptState,
    JobState,
    SlotState,
    StopReason,
    openai_status,
    transition,
)

TABLES = {
    JobState: JOB_TRANSITIONS,
    AttemptState: ATTEMPT_TRANSITIONS,
    AllocationState: ALLOCATION_TRANSITIONS,
    SlotState: SLOT_TRANSITIONS,
}
MOVES = [(old, new) for states in TABLES for old, new in product(states, states)]


@dataclass
class Row:
    state: StrEnum


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_a_state_is_set_exactly_where_the_table_allows_it(old: StrEnum, new: StrEnum) -> None:
    row = Row(old)
    if new in TABLES[type(old)][old]:
        assert transition(row, new) is old
        assert row.state is new
    else:
        with pytest.raises(IllegalTransition, match=f"{old} -> {new}"):
            transition(row, new)
        assert row.state is old


@pytest.mark.parametrize("states", TABLES)
def test_every_state_stands_in_its_table(states: type[StrEnum]) -> None:
    assert set(TABLES[states]) == set(states)


def test_a_final_job_stays_as_it_is_and_every_other_can_end() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == FINAL_JOB_STATES
    for state in set(JobState) - FINAL_JOB_STATES:
        assert reachable(state) & FINAL_JOB_STATES


def reachable(state: JobState) -> set[JobState]:
    seen: set[JobState] = set()
    todo = {state}
    while todo:
        seen |= todo
        todo = {after for one in todo for after in JOB_TRANSITIONS[one]} - seen
    return seen


def test_every_reason_to_stop_has_a_grace_and_leads_where_a_stopping_job_may_go() -> None:
    assert set(AFTER_STOP) == set(STOP_GRACE_S) == set(StopReason)
    assert set(AFTER_STOP.values()) <= JOB_TRANSITIONS[JobState.STOPPING]


def test_clients_of_openai_see_only_their_states() -> None:
    known = {"validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"}
    assert {openai_status(state) for state in JobState} == known
