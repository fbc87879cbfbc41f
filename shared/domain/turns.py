"""Teams take turns with their next jobs: the lowest standing first, which changes as a team is served."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import NamedTuple

from shared.domain.cluster import Node, Waiting
from shared.domain.room import Shape, memory_sizes
from shared.domain.standing import Standings, Types

Turn = tuple[float, float, str, str]
"""The least has the next turn; its end is the team."""


@dataclass(frozen=True, eq=False)
class Group:
    """The jobs of one team and one shape, which fare alike; there is one object of it in a pass."""

    team: str
    shape: Shape


class Next(NamedTuple):
    """A queued job, and its group."""

    job: Waiting
    group: Group


Lines = dict[str, deque[Next]]


def lines_of(queue: Sequence[Waiting], nodes: Sequence[Node]) -> Lines:
    """Each team's jobs in their order; `nodes` decide which of them are alike."""
    lines: Lines = defaultdict(deque)
    groups: dict[tuple[str, Shape], Group] = {}
    sizes = memory_sizes(nodes)
    for job in sorted(queue, key=attrgetter("order")):
        key = (job.team, Shape.of(job, sizes))
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(*key)
        lines[job.team].append(Next(job, group))
    return lines


def turn_of(head: Next, standings: Standings, types: Types) -> Turn:
    """By the team's standing for that job; among equals, whose next job has waited longest.

    `types`: the accelerator types that the job may run on.
    """
    _, queued_at, id = head.job.order
    return standings.of(head.job.team, types), queued_at, id, head.job.team


def take_turns(
    turn: Callable[[Next], Turn],
    lines: Lines,
    serve: Callable[[Next], bool],
    is_settled: Callable[[Next], bool],
) -> Lines:
    """Serve the teams' next jobs in turn. Returns those that were not served, in their order.

    `is_settled`: whether a job needs no turn of its own, as one of its group had it in vain.
    """
    left: Lines = {}
    turns = [turn(line[0]) for line in lines.values()]
    heapify(turns)
    while turns:
        team = heappop(turns)[-1]
        line = lines[team]
        asked = line.popleft()
        passed = [] if serve(asked) else [asked]
        while line and is_settled(line[0]):
            passed.append(line.popleft())
        if passed:
            left.setdefault(team, deque()).extend(passed)
        if line:
            heappush(turns, turn(line[0]))
    return left
