"""Putting right, finding by finding: each in a transaction of its own, so one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.db import drains, keeping, reconcile, team_deletion
from shared.db.audit import forget_entries
from shared.db.idempotency import forget_keys
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.errors import ThawError
from shared.settings import Settings

Finding = TypeVar("Finding")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def let_go_stopped_offers(engine: Engine) -> None:
    """Jobs that were asked to stop before a node had answered go on at once."""
    _each(engine, run_step(engine, reconcile.stopped_offers), reconcile.withdraw)


def vacate_drained_nodes(engine: Engine) -> None:
    """Jobs on nodes that an operator has drained are asked to leave."""
    _each(engine, run_step(engine, drains.on_drained_nodes), drains.vacate)


def end_deleted_teams(engine: Engine) -> None:
    """Teams that are to go: their jobs are cancelled, and once these are over the teams are gone."""
    _each(engine, run_step(engine, team_deletion.jobs_to_end), team_deletion.end_job)
    gone = _each(engine, run_step(engine, team_deletion.teams_to_delete), team_deletion.carry_on)
    for team in filter(None, gone):
        structlog.stdlib.get_logger(__name__).info("a team is gone", team=team)


def admit_jobs(engine: Engine) -> None:
    """Jobs whose base job is over are queued, or fail."""
    _each(engine, run_step(engine, reconcile.waiting_for_base), reconcile.admit)


def answer_silence(engine: Engine, settings: Settings) -> list[Offer]:
    """Offers that no node has answered, made anew or taken back. Returns those to publish."""
    offer_s, gang_s = settings.scaled(settings.offer_s), settings.scaled(settings.gang_s)
    silent = run_step(engine, reconcile.unanswered_offers, offer_s=offer_s)
    made = _each(engine, silent, reconcile.offer_again, offer_s=offer_s, gang_s=gang_s)
    return [offer for offers in made for offer in offers]


def expire_the_lost(engine: Engine, settings: Settings) -> None:
    """Leases that ran out, gangs that wait for such a node, and nodes not heard of for a lease."""
    log = structlog.stdlib.get_logger(__name__)
    lease_s, hold_after_s = settings.scaled(settings.lease_s), settings.scaled(settings.hold_after_s)
    held = run_step(engine, reconcile.held_gangs, unrenewed_s=hold_after_s, lease_s=lease_s)
    ended = _each(engine, held, reconcile.end_held_gang, unrenewed_s=hold_after_s, lease_s=lease_s)
    expired = _each(engine, run_step(engine, reconcile.expired_leases), reconcile.expire)
    lost = run_step(engine, reconcile.lose_silent_nodes, lease_s=lease_s)
    if any(ended):
        log.warning("gangs were ended, as one of their nodes renews nothing", number=sum(ended))
    if any(expired):
        log.warning("leases ran out", number=sum(expired))
    for node_id in lost:
        log.warning("a node is lost", node=node_id)


def forget_old_keys(engine: Engine, settings: Settings) -> None:
    """Idempotency-Keys that nobody can still be trying again with."""
    run_step(engine, forget_keys, older_than_s=settings.idempotency_keep_s)


def forget_old_entries(engine: Engine, settings: Settings) -> None:
    """Entries of the audit log that were kept for long enough."""
    run_step(engine, forget_entries, older_than_s=settings.audit_keep_s)


def delete_what_is_due(engine: Engine) -> None:
    """Jobs that are over, and uploads, which their teams keep no longer."""
    jobs, files = run_step(engine, keeping.due_jobs), run_step(engine, keeping.due_files)
    deleted = {
        "jobs": sum(_each(engine, jobs, keeping.delete_job_if_due, actor=reconcile.ACTOR)),
        "files": sum(_each(engine, files, keeping.delete_file_if_due)),
    }
    if any(deleted.values()):
        structlog.stdlib.get_logger(__name__).info("kept for long enough", **deleted)


def _each(
    engine: Engine,
    findings: Iterable[Finding],
    act: Callable[Concatenate[Session, Finding, Parameters], Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> list[Result]:
    results = []
    for finding in findings:
        try:
            results.append(run_step(engine, act, finding, *args, **kwargs))
        except (ThawError, DBAPIError) as error:
            if isinstance(error, DBAPIError) and not _was_answered(error):
                raise
            structlog.stdlib.get_logger(__name__).exception("a finding was left", finding=str(finding))
    return results


def _was_answered(error: DBAPIError) -> bool:
    """Whether the database itself refused, as when somebody else holds a job for long; else it is away."""
    return getattr(error.orig, "sqlstate", None) is not None
