"""What a team's jobs may ask for, held against what one asks for and what the team has."""

from __future__ import annotations

from shared.db import quotas
from shared.db.scope import Scope
from shared.domain.spec import AnyJobSpec
from shared.domain.team_limits import Limits, check_asked, check_queue, check_storage


def check_job(scope: Scope, spec: AnyJobSpec) -> None:
    """Raises Invalid where the job asks for more than its team's jobs may."""
    check_asked(quotas.limits_of(scope.session, scope.team_id), spec.resources, spec.max_duration_s)


def check_team(scope: Scope) -> None:
    """Raises Conflict or TooLarge where the team may not have one more job now.

    Of submissions at once, each sees those before it: they take turns from here until they commit.
    """
    limits = quotas.limits_of(scope.session, scope.team_id)
    if limits.max_queued_jobs is not None:
        quotas.lock_team(scope.session, scope.team_id)
        check_queue(limits, quotas.waiting_jobs(scope.session, scope.team_id))
    if limits.max_storage_bytes is not None:
        stored = quotas.stored_bytes(scope.session, scope.team_id)
        check_storage(limits, stored, 1, param=None)


def check_upload(scope: Scope, n_bytes: int, *, is_last_look: bool) -> None:
    """Raises TooLarge where the team may not keep so much more.

    The last look takes turns with other uploads until it commits.
    """
    limits: Limits = quotas.limits_of(scope.session, scope.team_id)
    if limits.max_storage_bytes is None:
        return
    if is_last_look:
        quotas.lock_team(scope.session, scope.team_id)
    check_storage(limits, quotas.stored_bytes(scope.session, scope.team_id), n_bytes, param="file")
