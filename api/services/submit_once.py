"""A submission that its sender has named makes one job, however often and wherever at once it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shared.db.idempotency import take_key
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.idempotency import Submission, request_sha256
from shared.domain.job_kind import JobKind
from shared.domain.spec import AnyJobSpec
from shared.ids import new_id


@dataclass(frozen=True)
class Submitted:
    """The job, and whether an earlier request has made it."""

    job: Job
    is_replay: bool


def submit_once(
    scope: Scope, kind: JobKind, key: str | None, spec: AnyJobSpec, store: Callable[[str], Job]
) -> Submitted:
    """Have `store` make the job under a new id, unless `key` stands for one already.

    Raises what `store` raises, and then the key is free; and what `take_key` does.
    """
    job_id = new_id(kind.id_start)
    if key is not None:
        there = take_key(scope, Submission(key, request_sha256(kind, spec)), job_id)
        if there is not None:
            return Submitted(there, is_replay=True)
    return Submitted(store(job_id), is_replay=False)
