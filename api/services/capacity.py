"""Whether any node could ever run a job."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.db.inventory import NodeView, all_nodes
from shared.domain.errors import Invalid, NotSupportedYet
from shared.domain.fairshare import Node, Waiting, accelerator_fits, could_ever_run
from shared.domain.spec import Resources


def check_capacity(session: Session, asked: Resources, registered_model: tuple[str, str] | None) -> None:
    """Refuse what no known node could ever give; where no node is known yet, refuse nothing."""
    if asked.nodes > 1:
        raise NotSupportedYet(
            "jobs on several nodes are not supported yet; give 1, with more devices_per_node",
            param="resources.nodes",
        )
    nodes = [_as_node(view) for view in all_nodes(session)]
    wanted = Waiting(
        id="",
        order=(0, 0.0, ""),
        devices_per_node=asked.devices_per_node,
        accelerator=asked.accelerator,
        registered_model=registered_model,
    )
    if nodes and not any(could_ever_run(wanted, node) for node in nodes):
        raise _too_much(asked, registered_model, nodes)


def _too_much(asked: Resources, model: tuple[str, str] | None, nodes: list[Node]) -> Invalid:
    having = ", ".join(sorted({f"{node.n_slots} x {node.accelerator}" for node in nodes}))
    fitting = [node for node in nodes if accelerator_fits(asked.accelerator, node.accelerator)]
    if not fitting:
        param, wrong = "resources.accelerator", f"no node has the accelerator {asked.accelerator!r}"
    elif asked.devices_per_node > max(node.n_slots for node in fitting):
        param = "resources.devices_per_node"
        wrong = f"no node has {asked.devices_per_node} devices of type {asked.accelerator!r}"
    else:
        param, wrong = "resources", f"no such node has the registered model {model[0] if model else ''!r}"
    return Invalid(f"{wrong}; the nodes have: {having}", param=param, code="never_available")


def _as_node(view: NodeView) -> Node:
    return Node(
        id=view.node.id,
        accelerator=view.node.accelerator,
        n_slots=len(view.slots),
        free_slots=(),
        models=frozenset((name, hash) for name, hash in view.node.models),
    )
