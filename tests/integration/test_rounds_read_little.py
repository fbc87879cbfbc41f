"""What the scheduler looks for all the time, and as a rule does not find: it reads little of what is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from scheduler.loop import Scheduler
from shared.db.engine import make_engine, transaction
from shared.queue import make_app
from shared.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _protocol import add_jobs, furnish, reset_counters

OVER = 3000
ROUNDS = 15  # after some, Postgres plans for whatever may be asked
MOST_ROWS_A_ROUND = 100

# All jobs read the one old file, and go on from one old job: both were needed today.
_PAST = """
insert into team_limits (team_id, keep_jobs_days, keep_files_days) values ('team-1', 30, 30);
update files set created_at = created_at - interval '90 days';
update jobs set base_job_id = 'ftjob-old-1' where id <> 'ftjob-old-1';
update jobs set finished_at = finished_at - interval '90 days' where id = 'ftjob-old-1';
insert into files (id, team_id, filename, purpose, bytes, sha256, storage_key, format, details, created_at,
                   deleted_at)
select 'file-' || n, 'team-1', 'd.zip', 'fine-tune', 3, 'ab', 'files/' || n, 'image_folder', '{}',
       clock_timestamp() - interval '1 day' * (n % 40),
       case when n % 40 >= 30 then clock_timestamp() end
from generate_series(1, :over) n;
insert into audit_entries (key_id, key_name, role, team_id, team_name, method, route, status, request_id)
select 'key-bench', 'bench', 'member', 'team-1', 'one', 'POST', '/v1/files', 200, n
from generate_series(1, :over) n;
insert into idempotency_keys (team_id, key, request_sha256, job_id)
select 'team-1', n, 'ab', 'ftjob-old-' || n from generate_series(1, :over) n
"""
_LEAVING = """
update jobs set state = 'stopping', stop_reason = 'cancel' where id = 'ftjob-last-1';
update teams set deletion_asked_at = clock_timestamp(), deletion_asked_by = 'api:key-bench'
"""
# A connection counts for itself, and tells it later; all of this is done on one.
_TELL_COUNTS = "select pg_stat_force_next_flush()"
_READ = """
select relname, seq_tup_read + coalesce(by_index, 0) as n from pg_stat_user_tables t left join
(select relid, sum(idx_tup_read) as by_index from pg_stat_user_indexes group by relid) i on i.relid = t.relid
"""


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = make_engine(settings.database_url.get_secret_value(), pool_size=1)
    yield made
    made.dispose()


def run(engine: Engine, statements: str) -> None:
    with transaction(engine) as session:
        for statement in statements.split(";"):
            session.execute(text(statement), {"over": OVER} if ":over" in statement else {})


def read_a_round(engine: Engine, settings: Settings) -> dict[str, float]:
    """Tables of which a scheduler's pass and round read more than a few rows, found or not, and how many."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))
    run(engine, _TELL_COUNTS)
    reset_counters(engine)
    app = make_app(settings.redis_url.get_secret_value())
    for _ in range(ROUNDS):
        Scheduler(engine, app, settings).step()
    run(engine, _TELL_COUNTS)
    with transaction(engine) as session:
        rows = {row.relname: float(row.n) / ROUNDS for row in session.execute(text(_READ))}
    return {table: n for table, n in rows.items() if n > MOST_ROWS_A_ROUND}


def test_rounds_read_little_where_nothing_is_due_or_a_team_waits_for_its_last_job(
    engine: Engine, settings: Settings
) -> None:
    # One team has it all: the planner knows of no other that it would have to look for.
    run(engine, "insert into teams (id, name) values ('team-1', 'one')")
    furnish(engine, OVER)
    run(engine, _PAST)
    assert read_a_round(engine, settings) == {}

    add_jobs(engine, "ftjob-last-", 1)
    run(engine, _LEAVING)
    assert read_a_round(engine, settings) == {}
