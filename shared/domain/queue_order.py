"""In which order waiting jobs have their turn: the one place from which what tells of the queue takes it."""

from __future__ import annotations

from collections.abc import Sequence

from shared.domain.cluster import Waiting


def in_order(queue: Sequence[Waiting]) -> list[Waiting]:
    """The waiting jobs, the one whose turn is next first."""
    return sorted(queue, key=lambda waiting: waiting.order)
