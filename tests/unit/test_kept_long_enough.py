"""How long jobs and files are kept: by when they were last needed, and never while they are."""

from __future__ import annotations

from shared.domain.keeping import DAY_S, Kept, is_due


def test_what_is_idle_for_as_long_as_it_is_kept_is_due() -> None:
    assert is_due(Kept("ftjob-1", 30, 30 * DAY_S))
    assert not is_due(Kept("ftjob-1", 30, 30 * DAY_S - 1))


def test_what_is_needed_is_never_due() -> None:
    assert not is_due(Kept("ftjob-1", 1, None))
