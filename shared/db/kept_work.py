"""How much of what a job's tries did is gone on from: what is behind that was in vain."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.db.models import Attempt, Checkpoint


def keep_up_to(session: Session, attempt: Attempt, checkpoint_id: str | None) -> None:
    """Of the tries before `attempt`, keep what leads to the checkpoint that it goes on from (None: nothing).

    The try that wrote it is kept up to then, and those after that one not at all. Those before it stay as
    they are: it stands on them.
    """
    taken = session.execute(
        select(Attempt.id, Attempt.number, Checkpoint.created_at)
        .join(Checkpoint, Checkpoint.attempt_id == Attempt.id)
        .where(Checkpoint.id == checkpoint_id, Attempt.job_id == attempt.job_id)
    ).one_or_none()
    behind = Attempt.number > (taken.number if taken else 0)
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == attempt.job_id, behind, Attempt.number < attempt.number)
        .values(kept_until=Attempt.created_at)
        .execution_options(synchronize_session=False)
    )
    if taken:
        session.execute(
            update(Attempt)
            .where(Attempt.id == taken.id)
            .values(kept_until=taken.created_at)
            .execution_options(synchronize_session=False)
        )
