"""The names most like one that is not there, for messages that help."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from heapq import nlargest


def nearest(wanted: str, names: Iterable[str], count: int = 5) -> list[str]:
    """The `count` names most like `wanted`, best first: sifted by common letter pairs, then ordered."""
    pairs = _letter_pairs(wanted)
    sifted = nlargest(8 * count, names, key=lambda name: _overlap(pairs, _letter_pairs(name)))
    likeness = SequenceMatcher(b=wanted, autojunk=False)

    def ratio(name: str) -> float:
        likeness.set_seq1(name)
        return likeness.ratio()

    return nlargest(count, sifted, key=ratio)


def _letter_pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)} or {text}


def _overlap(first: set[str], second: set[str]) -> float:
    return len(first & second) / (len(first) + len(second))
