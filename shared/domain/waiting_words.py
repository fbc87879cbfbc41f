"""Why a job waits, in words for its team."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.domain.quota import Books, Claim, Quota
from shared.domain.room import NodeClass, Room, Shape


def several_nodes(shape: Shape) -> str:
    return f"needs {shape.nodes} nodes; jobs of several nodes are not placed yet"


def never(shape: Shape) -> str:
    """No node could run it, were it empty."""
    model = f" with the registered model {shape.registered_model[0]}" if shape.registered_model else ""
    return f"{_needs(shape)}; no node{model} has that"


def not_allowed(shape: Shape, allowed: Iterable[str]) -> str:
    """Nodes could run it, on accelerators that its team may not use."""
    types = ", ".join(sorted(allowed)) or "none"
    return f"{_needs(shape)}; no node that could run it has an accelerator your team may use: {types}"


def no_room(shape: Shape, room: Room, able: Iterable[NodeClass], books: Books, team: str) -> str:
    """Its team may have the slots, and nowhere are there enough together."""
    able = list(able)
    largest = room.largest_block(able)
    if largest >= shape.devices:
        found = "there is room, and a job ahead in the queue waits for it"
    else:
        found = f"the largest free block is {largest}"
    return "; ".join([_needs(shape), found, *_borrowed(able, books, team)])


def taken_back(shape: Shape, node_id: str, accelerator: str, quota: Quota) -> str:
    """Its team's own quota is coming back."""
    return (
        f"{_needs(shape)}; it is within your team's nominal quota of {quota.nominal} of type {accelerator}, "
        f"and {shape.devices} on {node_id} are coming free for it"
    )


def not_permitted(shape: Shape, claims: Mapping[str, Claim], books: Books, team: str) -> str:
    """The quota of its team keeps it from every type it could run on."""
    why = [_refused(shape, type, claim, books, team) for type, claim in claims.items()]
    return "; ".join([_needs(shape), *why])


def _refused(shape: Shape, accelerator: str, why: Claim, books: Books, team: str) -> str:
    quota, used = books.quota(team, accelerator), books.used[team, accelerator]
    if why is Claim.OVER_LIMIT:
        return (
            f"your team holds {used} of type {accelerator}, and may hold its nominal quota of "
            f"{quota.nominal} and {quota.borrowing_limit} borrowed"
        )
    if why is Claim.TAKES_BACK:
        return f"your team takes its own quota of type {accelerator} back, and borrows none meanwhile"
    when = "just now" if why is Claim.NOT_NOW else "at any time"
    return (
        f"so many of type {accelerator} cannot be borrowed {when}: the teams that own them do not lend them"
    )


def _borrowed(able: Iterable[NodeClass], books: Books, team: str) -> list[str]:
    """On which of the types its team is over a nominal quota."""
    over = []
    for accelerator in sorted({alike.accelerator for alike in able}):
        quota, used = books.share(team).quotas.get(accelerator), books.used[team, accelerator]
        if quota is not None and used > quota.nominal:
            excess = used - quota.nominal
            over.append(f"your team is over its nominal quota of {quota.nominal} by {excess}, borrowed")
    return over


def _needs(shape: Shape) -> str:
    return f"needs {shape.devices} of type {shape.accelerator} on one node"
