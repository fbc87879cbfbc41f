"""A database with nodes, jobs that wait, and as many finished ones as are asked for, made fast."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from shared.db import nodes
from shared.db.engine import transaction
from shared.db.nodes import NodeFacts
from shared.db.steps import run_step

NODES = 4
SLOTS = 128

_PEOPLE = """
insert into api_keys (id, team_id, name, role, prefix, sha256)
select 'key-bench', id, 'bench', 'member', 'thaw_', 'bench' from teams limit 1;
insert into files (id, team_id, filename, purpose, bytes, sha256, storage_key, format, details)
select 'file-bench', id, 'digits.zip', 'fine-tune', 3, 'ab', 'files/bench', 'image_folder', '{}'
from teams limit 1
"""
_JOBS = """
insert into jobs (id, team_id, created_by, state, model, training_file_id, spec, resolved, freeze_plan, nodes,
                  devices_per_node, accelerator, max_attempts, n_events, queued_at, finished_at, result)
select :name || n, team_id, id, cast(:state as text), 'resnet18', 'file-bench',
       '{"model": "resnet18", "metadata": {}}',
       '{"target": {"source": "torchvision", "name": "resnet18", "hash": null}}', '{}', 1, 1, 'any', 3,
       :events, clock_timestamp(), case when cast(:state as text) = 'succeeded' then clock_timestamp() end,
       case when cast(:state as text) = 'succeeded' then jsonb_build_object('accuracy', 0.9) end
from api_keys, generate_series(1, :number) n where api_keys.id = 'key-bench'
"""
_FINISHED = (
    """
insert into attempts (id, job_id, number, state, nodes, claimed, lease_token, master_addr, master_port,
                      outcome, running_at, ended_at)
select 'attempt-old-' || n, 'ftjob-old-' || n, 1, 'ended', 1, 1, gen_random_uuid(), '127.0.0.1', 29500,
       'succeeded', clock_timestamp(), clock_timestamp()
from generate_series(1, :number) n
""",
    """
insert into allocations (id, attempt_id, node_id, node_rank, slots, accelerator, state, incarnation, claim_id,
                         claimed_at, ended_at, outcome)
select 'alloc-old-' || n, 'attempt-old-' || n, 'node-' || n % 4, 0, array[n % 128], 'cpu', 'ended',
       gen_random_uuid(), gen_random_uuid(), clock_timestamp(), clock_timestamp(), 'succeeded'
from generate_series(1, :number) n
""",
    """
insert into events (job_id, seq, type, message, actor, data)
select 'ftjob-old-' || n, seq, 'state', 'it went on', 'bench', '{"old": "queued", "new": "dispatched"}'
from generate_series(1, :number) n, generate_series(1, 5) seq
""",
)

_SCANS = """
select relname, seq_scan, seq_tup_read from pg_stat_user_tables where seq_scan > 0 order by seq_tup_read desc
"""


def furnish(engine: Engine, n_finished: int) -> dict[str, UUID]:
    """Nodes with free slots, and finished jobs with all that hangs on them. Returns incarnations."""
    with transaction(engine) as session:
        for statement in _PEOPLE.split(";"):
            session.execute(text(statement))
    lives = {f"node-{number}": uuid4() for number in range(NODES)}
    for name, life in lives.items():
        run_step(engine, nodes.register, _facts(name), life)
    if n_finished:
        add_jobs(engine, "ftjob-old-", n_finished, state="succeeded", events=5)
        with transaction(engine) as session:
            for statement in _FINISHED:
                session.execute(text(statement), {"number": n_finished})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))
    return lives


def add_jobs(engine: Engine, name: str, number: int, *, state: str = "queued", events: int = 0) -> None:
    """Jobs of one device, as the API would have written them."""
    with transaction(engine) as session:
        values = {"name": name, "number": number, "state": state, "events": events}
        session.execute(text(_JOBS), values)


def sequential_scans(engine: Engine) -> Iterator[tuple[str, int, int]]:
    """(table, scans, rows read by them) since the counters were reset, where any were made."""
    with transaction(engine) as session:
        rows = session.execute(text(_SCANS))
        yield from ((row.relname, row.seq_scan, row.seq_tup_read) for row in rows)


def reset_counters(engine: Engine) -> None:
    """Count scans from here on."""
    with transaction(engine) as session:
        session.execute(text("select pg_stat_reset()"))


def _facts(name: str) -> NodeFacts:
    return NodeFacts(
        id=name,
        queue=f"thaw@{name}.dq2",
        advertise_host="127.0.0.1",
        port_base=29500,
        accelerator="cpu",
        memory_bytes=None,
        n_slots=SLOTS,
        models=(),
    )
