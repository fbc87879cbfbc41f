"""A moment of a cluster as rows: what the scheduler reads of it, and what was done in the weeks before."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from typing import Any

from fair_share_pass import Moment
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from shared.db.engine import transaction
from shared.domain.cluster import Waiting
from shared.domain.resolved import ResolvedJob
from shared.domain.spec import Hyperparameters, resolve_hyperparameters

_LEASE_S = 36_000

_TEAMS = """
insert into teams (id, name) select id, id from jsonb_to_recordset(:rows) r(id text);
insert into api_keys (id, team_id, name, role, prefix, sha256)
select 'key-' || id, id, 'k', 'member', 'thaw_', id from jsonb_to_recordset(:rows) r(id text);
insert into files (id, team_id, filename, purpose, bytes, sha256, storage_key, format, details)
select 'file-' || id, id, 'digits.zip', 'fine-tune', 3, 'ab', 'files/' || id, 'image_folder', '{}'
from jsonb_to_recordset(:rows) r(id text);
insert into team_limits (team_id, weight)
select id, weight from jsonb_to_recordset(:rows) r(id text, weight float)
"""
_QUOTAS = """
insert into team_quotas (team_id, accelerator, nominal_quota, borrowing_limit, lending_limit)
select team, accelerator, nominal, borrowing_limit, lending_limit from jsonb_to_recordset(:rows)
r(team text, accelerator text, nominal int, borrowing_limit int, lending_limit int)
"""
_NODES = """
insert into nodes (id, incarnation, queue, advertise_host, port_base, accelerator, memory_bytes, models,
                   state)
select id, gen_random_uuid(), 'thaw@' || id || '.dq2', '127.0.0.1', 29500, accelerator, memory, '[]', 'ready'
from jsonb_to_recordset(:rows) r(id text, accelerator text, memory bigint);
insert into slots (node_id, index, state)
select id, index, 'free'
from jsonb_to_recordset(:rows) r(id text, slots int), generate_series(0, slots - 1) index
"""
_JOBS = """
insert into jobs (id, team_id, created_by, state, model, training_file_id, spec, resolved, freeze_plan, nodes,
                  devices_per_node, accelerator, memory_bytes, priority, max_attempts, queued_at)
select id, team, 'key-' || team, :state, 'resnet18', 'file-' || team, '{}', :resolved, '{}', nodes, devices,
       accelerator, memory, priority, 3, clock_timestamp() - interval '1 hour' + interval '1 ms' * place
from jsonb_to_recordset(:rows)
r(id text, team text, nodes int, devices int, accelerator text, memory bigint, priority int, place float)
"""
_RUNNING = """
insert into attempts (id, job_id, number, state, nodes, claimed, lease_token, master_addr, master_port,
                      created_at, running_at)
select 'attempt-' || id, id, 1, 'running', 1, 1, gen_random_uuid(), '127.0.0.1', 29500, at, at
from (select id, clock_timestamp() - interval '1 s' * ago as at
      from jsonb_to_recordset(:rows) r(id text, rank int, ago float) where rank = 0) r;
insert into allocations (id, attempt_id, node_id, node_rank, slots, accelerator, state, incarnation, claim_id,
                         claimed_at, lease_expires_at)
select 'alloc-' || id || '-' || rank, 'attempt-' || id, node, rank, slots, accelerator, 'claimed',
       gen_random_uuid(), gen_random_uuid(), clock_timestamp() - interval '1 s' * ago,
       clock_timestamp() + interval '1 s' * :lease_s
from jsonb_to_recordset(:rows) r(id text, rank int, node text, slots int[], accelerator text, ago float);
update slots set state = 'held', allocation_id = 'alloc-' || id || '-' || rank
from jsonb_to_recordset(:rows) r(id text, rank int, node text, slots int[])
where slots.node_id = node and slots.index = any(r.slots)
"""
# Each held 1 to 8 slots of a node for up to 10 hours, at some time in the last 28 days.
_FINISHED = """
insert into jobs (id, team_id, created_by, state, model, training_file_id, spec, resolved, freeze_plan, nodes,
                  devices_per_node, accelerator, max_attempts, queued_at, finished_at, result)
select 'ftjob-old-' || n, team, 'key-' || team, 'succeeded', 'resnet18', 'file-' || team, '{}', :resolved,
       '{}', 1, 1, 'any', 3, clock_timestamp(), clock_timestamp(), '{}'
from (select n, (cast(:teams as text[]))[1 + n % cardinality(cast(:teams as text[]))] as team
      from generate_series(1, :number) n) r;
insert into attempts (id, job_id, number, state, nodes, claimed, lease_token, master_addr, master_port,
                      outcome, running_at, ended_at)
select 'attempt-old-' || n, 'ftjob-old-' || n, 1, 'ended', 1, 1, gen_random_uuid(), '127.0.0.1', 29500,
       'succeeded', clock_timestamp(), clock_timestamp()
from generate_series(1, :number) n;
insert into allocations (id, attempt_id, node_id, node_rank, slots, accelerator, state, claimed_at, ended_at,
                         outcome)
select 'alloc-old-' || n, 'attempt-old-' || n, nodes.id, 0, array_fill(0, array[1 + n % 8]),
       nodes.accelerator, 'ended', ended_at - interval '10 hours' * random(), ended_at, 'succeeded'
from (select n, clock_timestamp() - interval '28 days' * n / :number as ended_at
      from generate_series(1, :number) n) r
join (select *, row_number() over (order by id) as place from nodes) nodes
on nodes.place = 1 + n % (select count(*) from nodes)
"""


def resolved(n_classes: int = 100) -> str:
    """As the API writes it for a job with so many classes: the scheduler reads a little of it."""
    network = {"source": "torchvision", "name": "resnet18", "num_classes": n_classes, "head": ["fc"]}
    preprocessing = {"height": 224, "width": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    job = ResolvedJob.model_validate(
        {
            "task": "classification",
            "base": {**network, "num_classes": 1000},
            "target": network,
            "replace_head": True,
            "weights": {
                "kind": "published",
                "name": "IMAGENET1K_V1",
                "url": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
                "file_name": "resnet18-f37072fd.pth",
                "sha256": "f37072fd",
            },
            "class_names": [f"class number {number:04}" for number in range(n_classes)],
            "freeze": "backbone",
            "hyperparameters": resolve_hyperparameters(Hyperparameters(), world_size=1),
            "preprocessing": {**preprocessing, "augment": "none", "max_unreadable_fraction": 0.01},
            "validation_fraction": 0.2,
            "max_duration_s": 86_400,
            "seed": 0,
        }
    )
    return job.model_dump_json()


def write_moment(engine: Engine, moment: Moment) -> None:
    """The teams, the nodes, what runs there and what waits. A running job holds its node's last slots."""
    with transaction(engine) as session:
        _write_teams(session, moment)
        _write_nodes(session, moment)
        _write_running(session, moment)
        _write_queue(session, moment)


def write_finished(engine: Engine, moment: Moment, number: int) -> None:
    """So many jobs of the moment's teams, each held slots within the last four weeks."""
    with transaction(engine) as session:
        _run(session, _FINISHED, number=number, teams=sorted(moment.teams), resolved=resolved())


def settle(engine: Engine) -> None:
    """Let Postgres know what it holds, as it would after a while."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def _write_teams(session: Session, moment: Moment) -> None:
    _run(session, _TEAMS, [{"id": team, "weight": share.weight} for team, share in moment.teams.items()])
    rows = [
        {"team": team, "accelerator": accelerator, **asdict(quota)}
        for team, share in moment.teams.items()
        for accelerator, quota in share.quotas.items()
    ]
    _run(session, _QUOTAS, rows)


def _write_nodes(session: Session, moment: Moment) -> None:
    rows = [
        {"id": node.id, "accelerator": node.accelerator, "memory": node.memory_bytes, "slots": node.n_slots}
        for node in moment.nodes
    ]
    _run(session, _NODES, rows)


def _write_running(session: Session, moment: Moment) -> None:
    taken = defaultdict(int, {node.id: len(node.free_slots) for node in moment.nodes})
    jobs, shares = [], []
    for running in moment.running:
        devices, nodes = running.held[0][1], len(running.held)
        jobs.append(_job(Waiting(running.id, (0, 0.0, ""), devices, "any", nodes, team=running.team)))
        for rank, (node, slots) in enumerate(running.held):
            held = list(range(taken[node], taken[node] + slots))
            taken[node] += slots
            facts = {"accelerator": running.accelerator, "ago": 1e5 - running.started_at}
            shares.append({"id": running.id, "rank": rank, "node": node, "slots": held, **facts})
    _run(session, _JOBS, jobs, state="running", resolved=resolved())
    _run(session, _RUNNING, shares, lease_s=_LEASE_S)


def _write_queue(session: Session, moment: Moment) -> None:
    jobs = [_job(one) for one in moment.queue]
    _run(session, _JOBS, jobs, state="queued", resolved=resolved())


def _job(job: Waiting) -> dict[str, Any]:
    return {
        "id": job.id,
        "team": job.team,
        "nodes": job.nodes,
        "devices": job.devices_per_node,
        "accelerator": job.accelerator,
        "memory": job.memory_bytes,
        "priority": -job.order[0],
        "place": job.order[1],
    }


def _run(session: Session, statements: str, rows: list[dict[str, Any]] | None = None, **values: Any) -> None:
    """Each statement over all the rows at once."""
    given = {**values, **({"rows": json.dumps(rows)} if rows is not None else {})}
    for statement in statements.split(";"):
        session.execute(text(statement), given)
