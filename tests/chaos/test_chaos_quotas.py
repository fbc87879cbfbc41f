"""The checker of quotas finds a team that holds too much, in whatever way and however shortly."""

from __future__ import annotations

import pytest
from harness.quotas import Span, is_borrowed, over_quota, states
from harness.teams import GUEST, NEIGHBOUR, OWED, OWNER, teams_of

SIZE = 8


def held(owner: int, neighbour: int, guest: int) -> dict[str, int]:
    return {OWNER: owner, NEIGHBOUR: neighbour, GUEST: guest}


@pytest.mark.parametrize(
    "state",
    [held(0, 0, 0), held(0, 6, 1), held(1, 6, 1), held(0, 5, 2), held(4, 2, 2), held(5, 2, 1), held(4, 3, 0)],
)
def test_what_quotas_allow_is_called_so(state: dict[str, int]) -> None:
    assert over_quota(state, OWED, SIZE) == []


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (held(6, 0, 0), "owner held 6 of type cpu, and may hold 5"),
        (held(0, 7, 0), "neighbour held 7 of type cpu, and may hold 6"),
        (held(0, 0, 3), "guest held 3 of type cpu, and may hold 2"),
        (held(0, 6, 2), "neighbour and guest held 8 of 8 of type cpu, of which others lend no 1"),
    ],
)
def test_what_quotas_forbid_is_found(state: dict[str, int], told: str) -> None:
    assert over_quota(state, OWED, SIZE) == [told]


def test_a_state_between_two_looks_is_found_in_the_history() -> None:
    spans = [Span(GUEST, 1, 1.0, 9.0), Span(GUEST, 1, 2.0, 5.0), Span(GUEST, 1, 4.999, 8.0)]
    found = [found for state in states(spans) for found in over_quota(state, OWED, SIZE)]
    assert found == ["guest held 3 of type cpu, and may hold 2"]


def test_what_begins_as_something_ends_takes_its_place() -> None:
    spans = [Span(GUEST, 3, 1.0, 5.0), Span(GUEST, 3, 5.0, 8.0)]
    assert [state[GUEST] for state in states(spans)] == [3, 0, 3, 0]


def test_a_team_borrows_that_holds_more_than_its_own() -> None:
    assert [is_borrowed(held(*n), OWED) for n in ((4, 2, 0), (5, 2, 0), (0, 0, 1))] == [False, True, True]


def test_the_owner_comes_when_others_have_borrowed_its_slots() -> None:
    teams = teams_of(12, n_late=4)
    assert OWNER not in teams[:8]
    assert teams[8:].count(OWNER) == 3
