"""Which nodes have come up, as the database knows it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.exc import DBAPIError

from shared.db.engine import make_engine, transaction
from shared.db.inventory import all_nodes


def has_registered(database_url: str, node: str, since: datetime) -> bool:
    """Whether a worker entered the node after `since`; an entry of an earlier start does not count."""
    engine = make_engine(database_url, pool_size=1)
    try:
        with transaction(engine) as session:
            known = all_nodes(session)
            return any(one.node.id == node and one.node.registered_at >= since for one in known)
    except DBAPIError:  # the database is being started again
        return False
    finally:
        engine.dispose()
