"""Nodes that get no offer for a while, because they were silent or failed by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from shared.db.clock import seconds_from_now
from shared.db.models import NodeRow
from shared.domain.job import NodeState


def suspect(session: Session, node_ids: Sequence[str], *, for_s: float) -> None:
    """Give these nodes no offer until they are heard again, and not for `for_s` seconds."""
    session.execute(
        update(NodeRow)
        .where(NodeRow.id.in_(node_ids), NodeRow.state.in_((NodeState.READY, NodeState.SUSPECT)))
        .values(state=NodeState.SUSPECT, suspect_until=seconds_from_now(for_s))
        .execution_options(synchronize_session=False)
    )
