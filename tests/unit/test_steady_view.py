"""When the reconciler may say that somebody was silent."""

from __future__ import annotations

from scheduler.steady import SteadyView


def test_it_takes_a_whole_lease_without_a_gap() -> None:
    view = SteadyView(needed_s=60, largest_gap_s=10)
    assert not view.is_steady(0)
    for now in range(0, 60, 5):
        view.seen(now)
        assert not view.is_steady(now)
    view.seen(60)
    assert view.is_steady(60)


def test_an_outage_starts_the_count_anew() -> None:
    view = SteadyView(needed_s=20, largest_gap_s=10)
    for now in range(0, 25, 5):
        view.seen(now)
    assert view.is_steady(20)
    view.lost()
    assert not view.is_steady(20)
    view.seen(25)
    assert not view.is_steady(44)
    assert view.is_steady(45)


def test_a_gap_that_nobody_noticed_counts_as_an_outage() -> None:
    view = SteadyView(needed_s=20, largest_gap_s=10)
    view.seen(0)
    view.seen(30)
    assert not view.is_steady(30)
