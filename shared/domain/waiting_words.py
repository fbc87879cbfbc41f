"""Why a job waits, in words for its team."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from shared.domain.memory import gib
from shared.domain.quota import Books, Claim, Quota
from shared.domain.room import Able, NodeClass, Room, Shape


def never(shape: Shape, n_able: int, small: Collection[NodeClass], n_out_of_reach: int = 0) -> str:
    """No nodes could run it, were they empty: of one type there are at most `n_able`, too few.

    `small`: those that have not the memory. `n_out_of_reach`: that could, if other machines reached them.
    """
    model = f" with the registered model {shape.registered_model[0]}" if shape.registered_model else ""
    needs = "; ".join([_needs(shape), *_too_small(shape, small), *_out_of_reach(n_out_of_reach)])
    if n_able == 0:
        return f"{needs}; no {'other ' if small or n_out_of_reach else ''}node{model} has that"
    are = "node of one type" if n_able == 1 else "nodes of one type"
    return f"{needs}; no more than {n_able} {are}{model} {'has' if n_able == 1 else 'have'} that"


def not_allowed(shape: Shape, allowed: Iterable[str]) -> str:
    """Nodes could run it, on accelerators that its team may not use."""
    types = ", ".join(sorted(allowed)) or "none"
    return f"{_needs(shape)}; no node that could run it has an accelerator your team may use: {types}"


def no_room(shape: Shape, room: Room, able: Able, books: Books, team: str) -> str:
    """Its team may have the slots, and nowhere are there enough together."""
    n_with = max(room.n_with(shape.devices, classes) for classes in able.values())
    if n_with >= shape.nodes:
        found = "there is room, and a job ahead in the queue waits for it"
    elif shape.nodes > 1:
        found = f"{_nodes(n_with, able)} so many free"
    else:
        largest = max(room.largest_block(classes) for classes in able.values())
        found = f"the largest free block is {largest}"
    memory = _too_small(shape, room.too_small(shape))
    return "; ".join([_needs(shape), found, *memory, *_borrowed(able, books, team)])


def taken_back(shape: Shape, node_ids: Sequence[str], accelerator: str, quota: Quota) -> str:
    """Its team's own quota is coming back."""
    each = f"{shape.devices} each" if shape.nodes > 1 else str(shape.devices)
    return (
        f"{_needs(shape)}; it is within your team's nominal quota of {quota.nominal} of type {accelerator}, "
        f"and {each} on {' and '.join(sorted(node_ids))} are coming free for it"
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
    if why is Claim.BEHIND:
        return f"what your team may still hold of type {accelerator} is kept for a job of it that is ahead"
    when = "just now" if why is Claim.NOT_NOW else "at any time"
    return (
        f"so many of type {accelerator} cannot be borrowed {when}: the teams that own them do not lend them"
    )


def _borrowed(able: Iterable[str], books: Books, team: str) -> list[str]:
    """On which of the types its team is over a nominal quota."""
    over = []
    for accelerator in sorted(able):
        quota, used = books.share(team).quotas.get(accelerator), books.used[team, accelerator]
        if quota is not None and used > quota.nominal:
            excess = used - quota.nominal
            over.append(f"your team is over its nominal quota of {quota.nominal} by {excess}, borrowed")
    return over


def _too_small(shape: Shape, small: Collection[NodeClass]) -> list[str]:
    """Where it does not fit, and by how much."""
    if not small:
        return []
    sizes = {(alike.accelerator, alike.like.memory_bytes or 0) for alike in small}
    having = ", ".join(f"{accelerator} ({gib(size)})" for accelerator, size in sorted(sizes))
    return [f"it takes {gib(shape.memory_bytes or 0)} of each device, more than these have: {having}"]


def _out_of_reach(n_nodes: int) -> list[str]:
    """Of a gang alone, on several machines."""
    if not n_nodes:
        return []
    nodes = "1 node that could has" if n_nodes == 1 else f"{n_nodes} nodes that could have"
    return [f"{nodes} an advertise_host which other machines do not reach (see THAW_ADVERTISE_HOST)"]


def _needs(shape: Shape) -> str:
    if shape.nodes > 1:
        return f"needs {shape.nodes} nodes with {shape.devices} of type {shape.accelerator} each"
    return f"needs {shape.devices} of type {shape.accelerator} on one node"


def _nodes(number: int, able: Able) -> str:
    """So many nodes, of the one type that has most of them where there are several."""
    of = " of one type" if len(able) > 1 else ""
    return {0: "no node has", 1: f"1 node{of} has"}.get(number, f"{number} nodes{of} have")
