"""Who handles an allocation, and how all are kept from it while the worker begins anew."""

from __future__ import annotations

from pathlib import Path

from worker.handling import all_kept_out, handling, is_handled, n_handled


def test_one_at_a_time_handles_an_allocation(tmp_path: Path) -> None:
    with handling(tmp_path, "alloc-1") as first, handling(tmp_path, "alloc-1") as second:
        assert (first, second) == (True, False)
        assert n_handled(tmp_path) == 1
    assert not is_handled(tmp_path, "alloc-1")
    assert n_handled(tmp_path) == 0


def test_nobody_is_kept_out_while_one_is_at_work(tmp_path: Path) -> None:
    with handling(tmp_path, "alloc-1"), all_kept_out(tmp_path) as shut:
        assert not shut
    with all_kept_out(tmp_path) as shut:
        assert shut


def test_who_comes_while_all_are_kept_out_handles_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with all_kept_out(tmp_path), handling(tmp_path, "alloc-1") as mine:
        assert not mine
    with handling(tmp_path, "alloc-1") as mine:
        assert mine
