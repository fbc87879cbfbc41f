"""The nodes there are, as a job sees them: whether any could ever run it, and what its devices hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from shared.db.inventory import KnownNode, all_nodes
from shared.domain.addresses import Address, out_of_reach
from shared.domain.cluster import Node, Waiting, accelerator_fits, could_ever_run, holds
from shared.domain.errors import Invalid, NotSupportedYet
from shared.domain.fits import NodeKind
from shared.domain.job import NodeState
from shared.domain.memory import gib
from shared.domain.spec import Resources

_OUT_OF_REACH = "other machines do not reach the address that these give (THAW_ADVERTISE_HOST)"


def check_capacity(
    session: Session, asked: Resources, registered_model: tuple[str, str] | None
) -> list[NodeKind]:
    """The kinds of nodes there are, by accelerator and memory, those that are lost among them.

    Refuses what no known node could ever give; where no node is known yet, refuses nothing.
    """
    views = all_nodes(session)
    nodes = _by_name(views)
    wanted = Waiting(
        id="",
        order=(0, 0.0, ""),
        devices_per_node=asked.devices_per_node,
        accelerator=asked.accelerator,
        nodes=asked.nodes,
        registered_model=registered_model,
        memory_bytes=asked.min_memory_bytes,
    )
    a_part = [node for node in nodes.values() if could_ever_run(replace(wanted, nodes=1), node)]
    if nodes and not a_part:
        raise _too_much(asked, registered_model, list(nodes.values()))
    if nodes and asked.nodes > max(_able(wanted, a_part).values(), default=0):
        raise _too_many_nodes(asked, wanted, a_part)
    return _kinds(replace(wanted, memory_bytes=None), views, nodes)


def check_one_node(asked: Resources, what: str, param: str) -> None:
    """Raises NotSupportedYet for `what` on several nodes: each rank writes its part below its own node."""
    if asked.nodes > 1:
        raise NotSupportedYet(
            f"{what} on one node only, and this job asks for {asked.nodes}; "
            "give resources.nodes 1, with more devices_per_node",
            param=param,
        )


def _able(wanted: Waiting, nodes: Iterable[Node]) -> Counter[str]:
    """By accelerator, how many of the nodes could take a share of the job."""
    return Counter(node.accelerator for node in nodes if could_ever_run(wanted, node))


def _kinds(wanted: Waiting, views: Sequence[KnownNode], nodes: Mapping[str, Node]) -> list[NodeKind]:
    alike: dict[tuple[str, int | None], list[KnownNode]] = {}
    able: Counter[tuple[str, bool]] = Counter()
    for view in views:
        alike.setdefault((view.node.accelerator, view.node.memory_bytes), []).append(view)
        able[view.node.accelerator, _is_there(view)] += could_ever_run(wanted, nodes[view.node.id])
    return [
        _kind(wanted, views, nodes, able[accelerator, True], able[accelerator, False])
        for (accelerator, _), views in alike.items()
    ]


def _kind(
    wanted: Waiting, views: Sequence[KnownNode], nodes: Mapping[str, Node], n_able: int, n_lost: int
) -> NodeKind:
    """Nodes that are alike: judged by those that are there, where some are."""
    node, there = views[0].node, [view for view in views if _is_there(view)]
    judged = [nodes[view.node.id] for view in there or views]
    why = _why_none(wanted, judged, n_able if there else n_able + n_lost)
    return NodeKind(node.accelerator, node.memory_bytes, len(there), why, len(views) - len(there))


def _is_there(view: KnownNode) -> bool:
    return view.node.state is not NodeState.LOST


def _why_none(wanted: Waiting, nodes: Sequence[Node], n_able: int) -> str | None:
    """Why none of these nodes, which are alike, could run the job; None where one could.

    `n_able` nodes of their accelerator could take a share, other kinds of memory included.
    """
    if any(could_ever_run(wanted, node) for node in nodes):
        short = (
            f"the job asks for {wanted.nodes} nodes of one accelerator, and {n_able} of these could take it"
        )
        return short if n_able < wanted.nodes else None
    if not accelerator_fits(wanted.accelerator, nodes[0].accelerator):
        return f"the job asks for the accelerator {wanted.accelerator!r}"
    if wanted.devices_per_node > max(node.n_slots for node in nodes):
        return f"the job asks for {wanted.devices_per_node} devices on one node"
    if any(could_ever_run(replace(wanted, nodes=1), node) for node in nodes):
        return f"the job asks for {wanted.nodes} nodes, and {_OUT_OF_REACH}"
    assert wanted.registered_model is not None  # nothing else is left that could be missing
    return f"the registered model {wanted.registered_model[0]!r} is not installed there"


def _too_much(asked: Resources, model: tuple[str, str] | None, nodes: list[Node]) -> Invalid:
    having = ", ".join(sorted({_having(node) for node in nodes}))
    fitting = [node for node in nodes if accelerator_fits(asked.accelerator, node.accelerator)]
    large = [node for node in fitting if node.n_slots >= asked.devices_per_node]
    if not fitting:
        param, wrong = "resources.accelerator", f"no node has the accelerator {asked.accelerator!r}"
    elif not large:
        param = "resources.devices_per_node"
        wrong = f"no node has {asked.devices_per_node} devices of type {asked.accelerator!r}"
    elif not any(holds(node, asked.min_memory_bytes) for node in large):
        param, asked_for = "resources.min_memory_bytes", gib(asked.min_memory_bytes or 0)
        wrong = f"no such node of type {asked.accelerator!r} has {asked_for} on each device"
    else:
        param, wrong = "resources", f"no such node has the registered model {model[0] if model else ''!r}"
    return Invalid(f"{wrong}; the nodes have: {having}", param=param, code="never_available")


def _too_many_nodes(asked: Resources, wanted: Waiting, a_part: Sequence[Node]) -> Invalid:
    """`a_part`: the nodes that could take a share, if others reach them."""
    able = _able(wanted, a_part)
    listed = ", ".join(f"{n} with {accelerator}" for accelerator, n in sorted(able.items())) or "none"
    unreached = [node.id for node in a_part if node.is_out_of_reach]
    left_out = f", and {' and '.join(unreached)} left out, as {_OUT_OF_REACH}" if unreached else ""
    return Invalid(
        f"the job asks for {asked.nodes} nodes at once, of one accelerator, with {asked.devices_per_node} "
        f"devices of type {asked.accelerator!r} on each; the nodes that have them: {listed}{left_out}; "
        f"give at most {max(able.values(), default=1)}",
        param="resources.nodes",
        code="never_available",
    )


def _having(node: Node) -> str:
    memory = "" if node.memory_bytes is None else f" with {gib(node.memory_bytes)} each"
    return f"{node.n_slots} x {node.accelerator}{memory}"


def _by_name(views: Sequence[KnownNode]) -> dict[str, Node]:
    there = {view.node.id: view.node for view in views if _is_there(view)}
    unreached = out_of_reach(
        {name: Address(node.advertise_host, node.machine) for name, node in there.items()}
    )
    return {
        view.node.id: Node(
            id=view.node.id,
            accelerator=view.node.accelerator,
            n_slots=len(view.slots),
            free_slots=(),
            models=frozenset((name, hash) for name, hash in view.node.models),
            memory_bytes=view.node.memory_bytes,
            is_out_of_reach=view.node.id in unreached,
        )
        for view in views
    }
