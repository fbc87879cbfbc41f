"""Which checkpoints stay: the newest and the best whatever the limit, else as many as it allows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.retention import best_of, superfluous


@dataclass(frozen=True)
class One:
    id: str
    is_best: bool


def newest_first(marks: str) -> list[One]:
    """A letter a checkpoint, the newest first: a capital one was the best when it was written."""
    return [One(letter.lower(), letter.isupper()) for letter in marks]


@pytest.mark.parametrize(
    ("marks", "limit", "gone"),
    [
        ("", 3, ""),
        ("abc", 3, ""),
        ("abcd", 3, "d"),
        ("abcD", 3, "c"),
        ("abCD", 3, "d"),
        ("Abcd", 3, "d"),
        ("Abcd", 1, "bcd"),
        ("abcD", 1, "bc"),
        ("abcD", 2, "bc"),
    ],
)
def test_the_newest_and_the_best_stay_and_then_what_is_newest(marks: str, limit: int, gone: str) -> None:
    assert superfluous(newest_first(marks), limit) == list(gone)


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 14))
def test_never_fewer_than_the_limit_never_the_newest_never_the_best(best: list[bool], limit: int) -> None:
    stored = [One(str(number), is_best) for number, is_best in enumerate(best)]

    gone = set(superfluous(stored, limit))

    kept = [one.id for one in stored if one.id not in gone]
    assert len(kept) >= min(limit, len(stored))
    assert len(kept) <= max(limit, 2)
    assert not gone & {one.id for one in stored[:1]}
    assert best_of(stored) not in gone
