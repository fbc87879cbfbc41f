"""A team goes with all that it owns once its jobs are over; others lose nothing, and its usage counts on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from checkpoint_rows import store
from dispatch_rows import World
from sqlalchemy import func, select, update

from api.bootstrap import new_admin_key
from scheduler.loop import Scheduler
from scheduler.sweeper import Sweeper
from shared.artifacts import open_store
from shared.artifacts.keys import artifact_key, file_key
from shared.db import erasing, team_deletion
from shared.db.clock import seconds_ago
from shared.db.engine import transaction
from shared.db.keys import add_key
from shared.db.models import (
    ApiKey,
    Artifact,
    Attempt,
    Checkpoint,
    Event,
    File,
    Job,
    Metric,
    Slot,
    Team,
    TeamLimit,
    TeamQuota,
)
from shared.db.steps import run_step
from shared.domain.errors import Conflict
from shared.domain.job import JobState, Outcome
from shared.queue import make_app
from shared.settings import Settings

TEAM = "/v1/teams/one"


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


@pytest.fixture
def world(api: ApiHouse) -> World:
    """The team `one`, with a file, beside the admin's own."""
    return World(api.engine).found()


def scheduler(api: ApiHouse) -> Scheduler:
    return Scheduler(api.engine, make_app(api.settings.redis_url.get_secret_value()), api.settings)


def delete(api: ApiHouse, **params: str) -> dict[str, Any]:
    answer = api.client.delete(TEAM, params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def key_of(api: ApiHouse, team_id: str, role: str = "owner") -> dict[str, str]:
    with transaction(api.engine) as session:
        return {"Authorization": f"Bearer {add_key(session, team_id, name='theirs', role=role)[1]}"}


def count(api: ApiHouse, table: type[Any], *where: Any) -> int:
    with transaction(api.engine) as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0


def gone(api: ApiHouse) -> bool:
    return api.client.get("/v1/teams/team-1").status_code == 404


def usage(api: ApiHouse) -> list[dict[str, Any]]:
    asked = {"group_by": ["team", "person", "model", "day"]}
    answer = api.client.get("/v1/usage", params=asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_a_team_that_owns_something_goes_only_with_its_name_given_again(api: ApiHouse, world: World) -> None:
    world.job()
    world.job(JobState.CANCELLED)
    said = refused(api.client.delete(TEAM), 409, "confirm", "2 jobs and 1 file", "confirm=one")
    assert said["code"] == "team_not_empty"
    for wrong in ("team-1", "One", ""):
        said = refused(api.client.delete(TEAM, params={"confirm": wrong}), 422, "confirm", "'one'")
        assert said["code"] == "not_confirmed"
    shown = api.client.get(TEAM).json()
    assert (shown["status"], shown["deletion_asked_at"]) == ("active", None)
    assert delete(api, confirm="one") == {"id": "team-1", "object": "team", "deleted": False}


def test_nobody_deletes_the_own_team(api: ApiHouse) -> None:
    other = api.client.post("/v1/teams", json={"name": "other"}).json()["id"]
    key_of(api, other, "admin")
    said = refused(api.client.delete("/v1/teams/default"), 409, None, "default", "another team")
    assert said["code"] == "own_team"
    assert api.client.get("/v1/teams/default").json()["status"] == "active"


def test_what_a_team_has_ends_first_and_then_the_team(api: ApiHouse, world: World) -> None:
    running = world.running()
    jobs = {
        "queued": world.job(),
        "waiting": world.job(JobState.VALIDATING_FILES, base_job_id=running.job_id),
        "paused": world.job(JobState.PAUSED),
        "over": world.job(JobState.CANCELLED),
    }
    owner = key_of(api, "team-1")
    terms = {"quotas": [{"accelerator": "cpu", "nominal_quota": 2}], "limits": {"max_devices": 4}}
    assert api.client.put(f"{TEAM}/quota", json=terms).status_code == 200
    assert delete(api, confirm="one")["deleted"] is False

    refused(api.client.get(JOBS, headers=owner), 401, None, "was revoked")
    assert (count(api, TeamQuota), count(api, TeamLimit)) == (0, 0)
    shown = api.client.get(TEAM).json()
    assert (shown["status"], shown["unfinished_jobs"]) == ("deleting", 4)
    assert "deleting" in str(api.client.get("/v1/teams").json())
    refused(api.client.post("/v1/teams", json={"name": "one"}), 409, "name", "is being deleted")
    asked = {"role": "member", "name": "more", "team": "one"}
    assert refused(api.client.post("/v1/keys", json=asked), 409, None)["code"] == "team_is_being_deleted"
    refused(api.client.put(f"{TEAM}/quota", json={}), 409, None, "is being deleted")

    scheduler(api).step()
    states = {name: world.read(job).state for name, job in jobs.items()}
    assert states == dict.fromkeys(jobs, JobState.CANCELLED)
    job = world.read(running.job_id)
    assert (job.state, job.stop_reason) == (JobState.STOPPING, "cancel")
    last = world.events(jobs["queued"])[-1]
    assert "its team one is being deleted" in last.message
    assert last.actor.startswith("api:key-")

    scheduler(api).step()
    assert api.client.get(TEAM).json()["unfinished_jobs"] == 1
    assert delete(api) == {"id": "team-1", "object": "team", "deleted": False}
    refused(api.client.delete(TEAM, params={"confirm": "two"}), 422, "confirm")
    assert world.finish(running, Outcome.STOPPED)
    assert not gone(api)
    scheduler(api).step()

    assert gone(api)
    refused(api.client.delete(TEAM, params={"confirm": "one"}), 404, None, "no team")
    assert count(api, Slot, Slot.state == "held") == 0
    assert count(api, Job, Job.team_id == "team-1", Job.deleted_at.is_(None)) == 0
    assert count(api, File, File.team_id == "team-1", File.deleted_at.is_(None)) == 0


def test_no_job_of_a_team_is_started_while_others_of_it_are_being_cancelled(
    api: ApiHouse, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_deletion, "_JOBS_A_STEP", 1)
    world.node()
    jobs = [world.job() for _ in range(4)]
    delete(api, confirm="one")
    waiting = []
    for _ in jobs:
        scheduler(api).step()
        waiting.append(sum(world.read(job).state is JobState.QUEUED for job in jobs))
    assert waiting == [3, 2, 1, 0]
    assert count(api, Attempt) == 0


def test_a_new_team_of_that_name_sees_nothing_of_the_old_one(api: ApiHouse, world: World) -> None:
    world.finish(world.running(), Outcome.SUCCEEDED, result={})
    old = key_of(api, "team-1")
    api.client.post(f"{JOBS}/ftjob-0/cancel", headers=old)
    delete(api, confirm="one")
    scheduler(api).step()

    new = api.client.post("/v1/teams", json={"name": "one"}).json()["id"]
    owner = key_of(api, new)
    assert new != "team-1"
    for path in (JOBS, "/v1/files", "/v1/feature_extraction/jobs", "/v1/audit", "/v1/usage", "/v1/queue"):
        assert api.client.get(path, headers=owner).json()["data"] == [], path
    refused(api.client.get("/v1/audit", params={"team": "team-1"}, headers=owner), 404, "team")
    seen = api.client.get("/v1/keys", headers=owner).json()["data"]
    assert [key["team"] for key in seen] == [new]
    entries = api.client.get("/v1/audit", params={"team": "team-1"}).json()["data"]
    assert [(entry["team_name"], entry["key_name"]) for entry in entries] == [("one", "theirs")]
    asked = api.client.get("/v1/audit", params={"target": "one"}).json()["data"]
    assert [(entry["method"], entry["status"]) for entry in asked] == [("DELETE", 200)]


def test_what_is_left_is_what_usage_counts(
    api: ApiHouse, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {"spec": {"metadata": {"a": "secret"}}, "resolved": {"class_names": ["secret"]}}
    kept = world.running(**full)
    for step in range(1, 4):
        assert store(world, kept, step)
    with transaction(api.engine) as session:
        session.add(
            Metric(job_id=kept.job_id, attempt_id=kept.attempt_id, kind="train", step=1, epoch=0, values={})
        )
        session.add(_artifact(kept.job_id, kept.attempt_id))
        session.add(_file("file-2"))
    assert world.finish(kept, Outcome.SUCCEEDED, result={"accuracy": "secret"})
    for _ in range(3):
        world.job(JobState.CANCELLED, **full)
    with transaction(api.engine) as session:
        session.execute(update(Attempt).values(error={"message": "secret"}))
    before = usage(api)
    assert before[0]["team"] == {"id": "team-1", "name": "one"}
    assert before[0]["slot_hours"] > 0

    monkeypatch.setattr(team_deletion, "BATCH", 2)
    monkeypatch.setattr(erasing, "_JOBS_A_STEP", 2)
    monkeypatch.setattr(erasing, "_ROWS_A_STEP", 2)
    delete(api, confirm="one")
    rounds = 0
    while not gone(api):
        scheduler(api).step()  # a new one each time: nothing is remembered between two steps
        rounds += 1
    assert rounds > 1
    while run_step(api.engine, erasing.erase_some, "team-1"):
        rounds += 1
        assert rounds < 50

    for table in (Event, Metric, Checkpoint, Artifact):
        assert count(api, table) == 0, table
    with transaction(api.engine) as session:
        files = {file.id: file for file in session.scalars(select(File))}
        assert files.keys() == {"file-1"}, "a job names it"
        assert (files["file-1"].filename, files["file-1"].details) == ("", {})
        for job in session.scalars(select(Job)):
            held = (job.spec, job.resolved, job.freeze_plan, job.progress, job.result, job.error)
            assert held == ({}, {}, {}, None, None, None)
        assert set(session.scalars(select(Attempt.error))) == {None}
        assert session.get_one(Team, "team-1").erased_at is not None
    assert usage(api) == before
    assert run_step(api.engine, erasing.teams_to_erase) == []


def test_the_sweep_takes_all_of_a_team_that_is_gone_and_nothing_of_another(
    api: ApiHouse, world: World
) -> None:
    bytes_of = open_store(api.settings.store_url)
    claimed = world.running()
    world.finish(claimed, Outcome.SUCCEEDED, result={})
    with transaction(api.engine) as session:
        session.add(Team(id="team-10", name="ten"))
        session.add(Team(id="team-", name="none"))
    theirs, others = (
        {
            file_key(team, "file-1"),
            file_key(team, "file-never-stored"),
            artifact_key(team, claimed.job_id, claimed.attempt_id, "model.safetensors"),
            artifact_key(team, "ftjob-0", "attempt-0", "logs.txt"),
        }
        for team in ("team-1", "team-10")
    )
    others |= {"team-1/x", "teams/team-1x/files/file-1", "mine/teams/team-1/files/file-1"}
    for key in theirs | others:
        bytes_of.put_bytes(key, b"x")
    for path in api.stored_bytes():
        os.utime(path, (time.time() - 2 * api.settings.sweep_grace_s,) * 2)
    sweeper = Sweeper(api.engine, bytes_of, api.settings)

    def left() -> set[str]:
        sweeper.round()
        return {entry.key for entry in bytes_of.list()}

    delete(api, confirm="one")
    assert left() >= others | {file_key("team-1", "file-1")}
    scheduler(api).step()
    while run_step(api.engine, erasing.erase_some, "team-1"):
        pass
    assert gone(api)
    assert left() >= others | {file_key("team-1", "file-never-stored")}, "within the grace nothing goes"
    with transaction(api.engine) as session:
        ago = seconds_ago(2 * api.settings.sweep_grace_s)
        session.execute(update(Team).where(Team.id == "team-1").values(deleted_at=ago))
    assert left() == others


def test_the_key_that_the_database_was_set_up_with_is_not_made_for_a_team_that_goes(api: ApiHouse) -> None:
    other = api.client.post("/v1/teams", json={"name": "other"}).json()["id"]
    api.data_set("a", "b")
    admin = key_of(api, other, "admin")
    answer = api.client.delete("/v1/teams/default", params={"confirm": "default"}, headers=admin)
    assert answer.json()["deleted"] is False
    before = count(api, ApiKey)
    with pytest.raises(Conflict, match="being deleted"):
        new_admin_key(api.engine)
    assert count(api, ApiKey) == before
    scheduler(api).step()
    with transaction(api.engine) as session:
        assert session.scalar(select(Team.deleted_at).where(Team.name == "default")) is not None
    assert new_admin_key(api.engine).startswith("thaw_")


def _artifact(job_id: str, attempt_id: str) -> Artifact:
    return Artifact(
        job_id=job_id, name="model.json", attempt_id=attempt_id, storage_key="k", bytes=1, sha256="0"
    )


def _file(id: str) -> File:
    return File(
        id=id,
        team_id="team-1",
        filename="secret.zip",
        purpose="fine-tune",
        bytes=1,
        sha256=uuid4().hex,
        storage_key=f"k/{id}",
        format="weights",
        details={"classes": ["secret"]},
    )


def test_another_team_s_jobs_and_files_stay_when_one_goes(api: ApiHouse, world: World) -> None:
    file = api.data_set("a", "b")
    waiting = api.job(training_file=file)["id"]
    nobody_s = api.client.post("/v1/teams", json={"name": "empty"}).json()["id"]
    world.job()
    delete(api, confirm="one")
    for _ in range(5):
        scheduler(api).step()
    assert gone(api)
    assert api.client.get(f"{JOBS}/{waiting}").json()["phase"] == "queued"
    assert api.client.get(f"/v1/files/{file}").status_code == 200
    for team in ("default", nobody_s):
        assert api.client.get(f"/v1/teams/{team}").json()["status"] == "active"
