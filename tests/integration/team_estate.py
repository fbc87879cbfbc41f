"""A team with all that one can own, as rows and as bytes in the store, and what of it is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from api_house import JOBS, SMALL, ApiHouse, class_folders
from sqlalchemy import text

from shared.artifacts import open_store
from shared.artifacts.keys import artifact_key, file_key
from shared.db.engine import transaction

N_OLD = 1100  # more than are deleted at once
N_SUBMITTED = 4  # over HTTP
N_QUEUED = 130  # more than are cancelled at once
_STORES_EACH = 5

_OLD = """
insert into jobs (id, team_id, created_by, state, model, training_file_id, spec, resolved, freeze_plan, nodes,
                  devices_per_node, accelerator, max_attempts, n_events, queued_at, finished_at, result)
select 'ftjob-' || :name || '-old-' || n, team_id, created_by, 'succeeded', model, training_file_id, spec,
       resolved, freeze_plan, 1, 1, 'any', 3, 3, clock_timestamp(), clock_timestamp(), '{"a": "secret"}'
from jobs, generate_series(1, :old) n where id = :like;
insert into attempts (id, job_id, number, state, nodes, claimed, lease_token, master_addr, master_port,
                      outcome, running_at, ended_at)
select 'attempt-' || :name || '-' || n, 'ftjob-' || :name || '-old-' || n, 1, 'ended', 1, 1,
       gen_random_uuid(), '127.0.0.1', 29500, 'succeeded', clock_timestamp(), clock_timestamp()
from generate_series(1, :old) n;
insert into allocations (id, attempt_id, node_id, node_rank, slots, accelerator, state, claimed_at, ended_at,
                         outcome)
select 'alloc-' || :name || '-' || n, 'attempt-' || :name || '-' || n, 'node-0', 0, array[0], 'cpu', 'ended',
       clock_timestamp() - interval '5 hours', clock_timestamp() - interval '1 hour' * (n % 4), 'succeeded'
from generate_series(1, :old) n;
insert into events (job_id, seq, type, message, actor)
select 'ftjob-' || :name || '-old-' || n, seq, 'note', 'secret', 'test'
from generate_series(1, :old) n, generate_series(1, 3) seq;
insert into metrics (job_id, attempt_id, kind, step, epoch, values)
select 'ftjob-' || :name || '-old-' || n, 'attempt-' || :name || '-' || n, 'train', 1, 0, '{"loss": 1}'
from generate_series(1, :old) n;
insert into artifacts (job_id, name, attempt_id, storage_key, bytes, sha256)
select job_id, 'model.safetensors', id,
       'teams/' || :team || '/jobs/' || job_id || '/attempts/' || id || '/artifacts/model.safetensors', 1, '0'
from attempts where id like 'attempt-' || :name || '-%' and substr(id, length(id)) in ('0', '5');
insert into checkpoints (id, job_id, attempt_id, epoch, step, is_best, storage_prefix, manifest)
select 'ftckpt-' || id, job_id, id, 1, 7, true,
       'teams/' || :team || '/jobs/' || job_id || '/attempts/' || id || '/checkpoints/step-000000007', '{}'
from attempts where id like 'attempt-' || :name || '-%' and substr(id, length(id)) in ('0', '5')
"""
_QUEUED = """
insert into jobs (id, team_id, created_by, state, model, training_file_id, spec, resolved, freeze_plan, nodes,
                  devices_per_node, accelerator, max_attempts, n_events, queued_at)
select 'ftjob-' || :name || '-new-' || n, team_id, created_by, 'queued', model, training_file_id, spec,
       resolved, freeze_plan, 1, 1, 'any', 3, 1, clock_timestamp()
from jobs, generate_series(1, :queued) n where id = :like;
insert into events (job_id, seq, type, message, actor, data)
select 'ftjob-' || :name || '-new-' || n, 1, 'state', 'created', 'test', '{"old": null, "new": "queued"}'
from generate_series(1, :queued) n
"""
_STORED = """
select storage_key from artifacts join jobs on jobs.id = job_id where team_id = :team
union all select storage_prefix || '/manifest.json' from checkpoints join jobs on jobs.id = job_id
where team_id = :team
"""
_OF_JOBS = ("events", "metrics", "checkpoints", "artifacts", "idempotency_keys")


@dataclass(frozen=True)
class Estate:
    """A team, its owner's key, its file, and its jobs that wait and were submitted over HTTP."""

    api: ApiHouse
    name: str
    team: str
    key: str
    headers: dict[str, str]
    file: str
    submitted: tuple[str, ...]

    @property
    def prefix(self) -> str:
        return f"teams/{self.team}/"

    def stored(self) -> set[str]:
        """What is there of it in the store, as the store lists it."""
        store = open_store(self.api.settings.store_url)
        return {entry.key for entry in store.list() if entry.key.startswith(self.prefix)}

    def usage(self, until: int) -> list[dict[str, Any]]:
        """What it held until then, as an admin of another team reads it."""
        asked = {"group_by": ["team", "person", "model", "day"], "end": until, "team": self.team}
        answer = self.api.client.get("/v1/usage", params={**asked, "start": until - 86_400})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]
        # Whether it was in vain is settled only once a job is over.
        return [{field: row[field] for field in row if field != "wasted_slot_hours"} for row in rows]

    def jobs(self) -> set[str]:
        """All of its jobs, those that were deleted too."""
        query = text("select id from jobs where team_id = :team")
        with transaction(self.api.engine) as session:
            return set(session.scalars(query, {"team": self.team}))

    def rows_of_jobs(self) -> dict[str, int]:
        """How many rows hang on its jobs, by table."""
        query = "select count(*) from {} where job_id in (select id from jobs where team_id = '{}')"
        return {table: self._count(query.format(table, self.team)) for table in _OF_JOBS}

    def says(self, word: str) -> int:
        """In how many of its jobs, tries and files that word stands."""
        mine = f"select id from jobs where team_id = '{self.team}'"
        rows = (
            f"select jobs::text as row from jobs where team_id = '{self.team}' "
            f"union all select files::text from files where team_id = '{self.team}' "
            f"union all select attempts::text from attempts where job_id in ({mine})"
        )
        return self._count(f"select count(*) from ({rows}) r where row like '%{word}%'")

    def _count(self, query: str) -> int:
        with transaction(self.api.engine) as session:
            return int(session.scalar(text(query)) or 0)


def estate(api: ApiHouse, name: str) -> Estate:
    """A team with files, finished jobs that left models and checkpoints, and jobs that wait."""
    team = api.client.post("/v1/teams", json={"name": name}).json()["id"]
    key = api.client.post("/v1/keys", json={"role": "owner", "name": f"{name}-key", "team": team}).json()
    headers = {"Authorization": f"Bearer {key['key']}"}
    file = _upload(api, headers)
    _upload(api, headers)  # one that no job names
    submitted = tuple(_submit(api, headers, file, f"{name}-{number}") for number in range(N_SUBMITTED))
    values = {"name": name, "team": team, "like": submitted[0], "old": N_OLD, "queued": N_QUEUED}
    with transaction(api.engine) as session:
        for statement in (*_OLD.split(";"), *_QUEUED.split(";")):
            session.execute(text(statement), values)
        keys = session.scalars(text(_STORED), {"team": team}).all()
    _fill(api, [*keys, *_without_a_row(team, name)])
    return Estate(api, name, team, key["id"], headers, file, submitted)


def _without_a_row(team: str, name: str) -> list[str]:
    """Logs, which have none, and what a process that was killed left behind."""
    logs = [
        artifact_key(team, f"ftjob-{name}-old-{n}", f"attempt-{name}-{n}", "logs.txt")
        for n in range(1, N_OLD, 10)
    ]
    return [*logs, file_key(team, "file-never-written-down")]


def _fill(api: ApiHouse, keys: Sequence[str]) -> None:
    root = Path(urlsplit(api.settings.store_url).path)
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"x")


def _upload(api: ApiHouse, headers: dict[str, str]) -> str:
    form = {"files": {"file": ("secret.zip", class_folders("a", "b"))}, "data": {"purpose": "fine-tune"}}
    answer = api.client.post("/v1/files", headers=headers, **form)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def _submit(api: ApiHouse, headers: dict[str, str], file: str, key: str) -> str:
    named = {**headers, "Idempotency-Key": key}
    body = {**SMALL, "training_file": file, "metadata": {"a": "secret"}}
    answer = api.client.post(JOBS, json=body, headers=named)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])
