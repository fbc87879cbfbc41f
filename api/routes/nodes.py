"""/v1/nodes: the hosts that jobs run on, and taking one away in order."""

from __future__ import annotations

from fastapi import APIRouter

from api.audit_trail import AuditedRoute
from api.deps import CallerDep, OperatorDep, SessionDep
from api.errors import documented
from api.query import After, Limit
from api.schemas import ListOf, NodeView
from api.views import node_view, slice_of
from shared.db import drains
from shared.db.inventory import all_nodes, holders, one_node
from shared.db.keys import Caller

router = APIRouter(prefix="/v1/nodes", tags=["nodes"], route_class=AuditedRoute)


@router.get("", responses=documented(404))
def list_all(
    session: SessionDep, caller: CallerDep, after: After = None, limit: Limit = 1000
) -> ListOf[NodeView]:
    """The hosts that run jobs, and their slots, by name."""
    known = holders(session, _team_seen_by(caller))
    return slice_of([node_view(node, known) for node in all_nodes(session)], after, limit)


@router.get("/{node_id}", responses=documented(404))
def get_one(node_id: str, session: SessionDep, caller: CallerDep) -> NodeView:
    """One host, its slots, and the caller's jobs on them."""
    return node_view(one_node(session, node_id), holders(session, _team_seen_by(caller)))


@router.post("/{node_id}/drain", responses=documented(403, 404))
def drain(node_id: str, session: SessionDep, caller: OperatorDep) -> NodeView:
    """For admins: give a node no more work until it is undrained, and have its jobs leave it.

    They write a checkpoint and wait again in their place, with no attempt used up. The node stays drained
    when its worker starts again. Asking again changes nothing.
    """
    drains.drain(session, node_id, actor=caller.actor)
    return _changed(session, caller, node_id)


@router.post("/{node_id}/undrain", responses=documented(403, 404))
def undrain(node_id: str, session: SessionDep, caller: OperatorDep) -> NodeView:
    """For admins: give a drained node work again, from its next heartbeat on."""
    drains.undrain(session, node_id)
    return _changed(session, caller, node_id)


def _changed(session: SessionDep, caller: Caller, node_id: str) -> NodeView:
    session.flush()
    session.expire_all()
    return node_view(one_node(session, node_id), holders(session, _team_seen_by(caller)))


def _team_seen_by(caller: Caller) -> str | None:
    """Whose jobs are told of: an admin sees all teams."""
    return None if caller.role == "admin" else caller.team_id
