"""Pause, resume with changes, preempt and drain over HTTP: who may, what changes, and every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from sqlalchemy import func, update

from shared.db.engine import transaction
from shared.db.history import lock_job, move
from shared.db.models import Attempt, Checkpoint, Job
from shared.db.placement import place
from shared.domain.cluster import Part, Placement
from shared.domain.job import AttemptState, JobState, StopReason
from shared.ids import new_id
from shared.settings import Settings

RUNNING = (JobState.DISPATCHED, JobState.RUNNING)
EXTRACTIONS = "/v1/feature_extraction/jobs"


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def post(api: ApiHouse, job: str, action: str, body: Any = None) -> dict[str, Any]:
    answer = api.client.post(f"{JOBS}/{job}/{action}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stop(api: ApiHouse, job_id: str, reason: StopReason, *after: JobState) -> None:
    """As when somebody asked, and then the worker let it go."""
    with transaction(api.engine) as session:
        job = lock_job(session, job_id)
        move(session, job, JobState.STOPPING, actor="test", reason="asked", stop_reason=reason)
        for state in after:
            move(session, job, state, actor="test", reason="gone")


def events(api: ApiHouse, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.client.get(f"{JOBS}/{job}/events?order=asc&limit=100").json()["data"]
    return found


def test_a_waiting_job_is_paused_at_once_and_resumed(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    for _ in range(2):
        paused = post(api, job, "pause")
        assert (paused["status"], paused["phase"], paused["stop_reason"]) == ("paused", "paused", None)
    assert api.client.get("/v1/queue").json()["data"] == []
    for _ in range(2):
        assert post(api, job, "resume")["phase"] == "queued", "the second one finds it so"
    changes = [event for event in events(api, job) if event["type"] == "state"]
    told = [(event["data"]["old"], event["data"]["new"]) for event in changes]
    assert told == [
        (None, "validating_files"),
        ("validating_files", "queued"),
        ("queued", "paused"),
        ("paused", "queued"),
    ]
    assert {event["actor"][:8] for event in changes} == {"api:key-"}


def test_a_running_job_leaves_first_and_is_not_resumed_before(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    api.move(job, *RUNNING)
    for _ in range(2):
        leaving = post(api, job, "pause")
        assert (leaving["status"], leaving["phase"], leaving["stop_reason"]) == (
            "running",
            "stopping",
            "pause",
        )
    error = refused(api.client.post(f"{JOBS}/{job}/resume"), 409, None, "once it is paused")
    assert error["code"] == "job_is_stopping"
    api.move(job, JobState.PAUSED)
    assert post(api, job, "cancel")["status"] == "cancelled"


@pytest.mark.parametrize("action", ["pause", "resume", "cancel", "preempt"])
def test_what_is_over_is_left_alone(api: ApiHouse, action: str) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    post(api, job, "cancel")
    error = refused(api.client.post(f"{JOBS}/{job}/{action}"), 409, None, "over already: cancelled")
    assert error["code"] == "job_is_final"


def test_what_is_being_cancelled_is_neither_paused_nor_resumed(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    api.move(job, *RUNNING)
    post(api, job, "cancel")
    for action in ("pause", "resume"):
        error = refused(api.client.post(f"{JOBS}/{job}/{action}"), 409, None, "is being cancelled")
        assert error["code"] == "job_is_cancelled"


def paused_at(api: ApiHouse, epoch: int, step: int, steps_per_epoch: int, **body: Any) -> str:
    """A job that ran to a checkpoint and is paused."""
    job: str = api.job(training_file=api.data_set("a", "b", samples=50), **body)["id"]
    api.move(job, *RUNNING)
    stop(api, job, StopReason.PAUSE, JobState.PAUSED)
    with transaction(api.engine) as session:
        row = lock_job(session, job)
        n_epochs = row.resolved["hyperparameters"]["n_epochs"]
        row.progress = {"train": {"n_epochs": n_epochs, "total_steps": n_epochs * steps_per_epoch}}
        attempt = Attempt(
            id=new_id("attempt"),
            job_id=job,
            number=1,
            state=AttemptState.ENDED,
            nodes=1,
            lease_token=uuid4(),
            master_addr="127.0.0.1",
            master_port=1,
            ended_at=func.clock_timestamp(),
        )
        session.add(attempt)
        session.flush()
        session.add(
            Checkpoint(
                id=new_id("ftckpt"),
                job_id=job,
                attempt_id=attempt.id,
                epoch=epoch,
                step=step,
                is_best=False,
                storage_prefix="p",
                manifest={"epoch": epoch, "step": step, "is_best": False, "metrics": {}, "files": []},
            )
        )
    return job


def test_a_change_is_recorded_and_what_was_asked_for_at_first_stays(api: ApiHouse) -> None:
    asked = {"n_epochs": 3, "batch_size": 20, "learning_rate": 0.01}
    job = paused_at(api, 1, 7, 5, hyperparameters=asked)
    plan = api.client.get(f"{JOBS}/{job}").json()["freeze_plan"]
    body = {
        "hyperparameters": {"n_epochs": 5, "learning_rate": 0.003},
        "max_duration_s": 600,
        "priority": 4,
    }

    resumed = post(api, job, "resume", body)

    assert resumed["phase"] == "queued"
    assert resumed["hyperparameters"]["n_epochs"] == 5
    assert resumed["hyperparameters"]["learning_rate"] == 0.003
    assert (resumed["max_duration_s"], resumed["priority"]) == (600, 4)
    assert resumed["freeze_plan"] == plan
    told = [(change["field"], change["old"], change["new"]) for change in resumed["changes"]]
    assert told == [
        ("hyperparameters.learning_rate", 0.01, 0.003),
        ("hyperparameters.n_epochs", 3, 5),
        ("max_duration_s", None, 600),
        ("priority", 0, 4),
    ]
    change, queued = events(api, job)[-2:]
    assert (change["type"], change["data"]["changes"]) == ("change", resumed["changes"])
    assert "hyperparameters.n_epochs 3 -> 5" in change["message"]
    assert change["actor"] == queued["actor"] == resumed["changes"][0]["actor"]
    assert (queued["data"]["old"], queued["data"]["new"]) == ("paused", "queued")
    with transaction(api.engine) as session:
        row = session.get_one(Job, job)
        assert row.spec["hyperparameters"]["n_epochs"] == 3
        assert row.spec["priority"] == 0


def test_what_is_so_already_is_no_change(api: ApiHouse) -> None:
    job = paused_at(api, 1, 5, 5, hyperparameters={"n_epochs": 3})
    assert post(api, job, "resume", {"hyperparameters": {"n_epochs": 3}})["changes"] == []
    assert "change" not in [event["type"] for event in events(api, job)]


def test_a_limit_is_taken_away_by_null(api: ApiHouse) -> None:
    job = paused_at(api, 1, 5, 5, max_duration_s=60)
    assert post(api, job, "resume", {"max_duration_s": None})["max_duration_s"] is None


BAD: list[tuple[Any, int, str | None, str]] = [
    ({"n_epochs": 5}, 422, "n_epochs", "no such field"),
    ({"hyperparameters": {"batch_size": 4}}, 422, "hyperparameters.batch_size", "n_epochs, learning_rate"),
    ({"hyperparameters": {"n_epochs": "5"}}, 422, "hyperparameters.n_epochs", "valid integer"),
    ({"hyperparameters": {"n_epochs": None}}, 422, "hyperparameters.n_epochs", "leave the field out"),
    ({"hyperparameters": {"learning_rate": 11}}, 422, "hyperparameters.learning_rate", "10"),
    ({"priority": 2000}, 422, "priority", "1000"),
    ({"hyperparameters": {"n_epochs": 2}}, 422, "hyperparameters.n_epochs", "give 3 at least"),
    ({"hyperparameters": {"n_epochs": 3}}, 422, "hyperparameters.n_epochs", "freeze.schedule[0].at_epoch"),
    ([], 400, None, "JSON object"),
]


def test_a_change_that_cannot_be_is_refused_and_the_job_stays_paused(api: ApiHouse) -> None:
    schedule = {"rules": [{"freeze": "layer1"}], "schedule": [{"at_epoch": 3, "train": "layer1"}]}
    asked = {"n_epochs": 4, "batch_size": 20}
    job = paused_at(api, 2, 11, 5, freeze=schedule, hyperparameters=asked)
    before = len(events(api, job))
    for body, status, param, words in BAD:
        refused(api.client.post(f"{JOBS}/{job}/resume", json=body), status, param, words)
    unchanged = api.client.get(f"{JOBS}/{job}").json()
    assert (unchanged["phase"], unchanged["changes"]) == ("paused", [])
    assert len(events(api, job)) == before


def test_a_warm_up_longer_than_the_changed_job_is_refused(api: ApiHouse) -> None:
    asked = {"n_epochs": 4, "batch_size": 20, "warmup_steps": 18}
    job = paused_at(api, 1, 5, 5, hyperparameters=asked)
    answer = api.client.post(f"{JOBS}/{job}/resume", json={"hyperparameters": {"n_epochs": 3}})
    refused(answer, 422, "hyperparameters.warmup_steps", "18", "15 steps")


def test_a_limit_that_is_past_already_is_refused(api: ApiHouse) -> None:
    job = paused_at(api, 1, 5, 5, max_duration_s=600)
    with transaction(api.engine) as session:
        session.execute(update(Attempt).values(ran_s=90.5))
    answer = api.client.post(f"{JOBS}/{job}/resume", json={"max_duration_s": 90})
    assert refused(answer, 422, "max_duration_s", "run for 90 s", "null")["code"] == "time_spent"
    assert post(api, job, "resume", {"max_duration_s": 91})["max_duration_s"] == 91


def test_only_a_paused_job_is_changed(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    answer = api.client.post(f"{JOBS}/{job}/resume", json={"priority": 3})
    assert refused(answer, 409, None, "pause it first")["code"] == "job_is_not_paused"
    assert api.client.get(f"{JOBS}/{job}").json()["priority"] == 0


def test_an_extraction_is_paused_and_its_limits_are_changed(api: ApiHouse) -> None:
    body = {
        "model": "resnet18",
        "weights": "none",
        "input_file": api.data_set("a", "b"),
        "modules": ["layer4"],
    }
    job = api.client.post(EXTRACTIONS, json=body).json()["id"]
    assert api.client.post(f"{EXTRACTIONS}/{job}/pause").json()["phase"] == "paused"
    refused(api.client.post(f"{JOBS}/{job}/resume"), 404, None, job)
    bad = {"hyperparameters": {"n_epochs": 2}}
    refused(api.client.post(f"{EXTRACTIONS}/{job}/resume", json=bad), 422, "hyperparameters", "priority")
    resumed = api.client.post(f"{EXTRACTIONS}/{job}/resume", json={"priority": 2, "max_duration_s": 9}).json()
    assert (resumed["object"], resumed["phase"]) == ("feature_extraction.job", "queued")
    assert (resumed["priority"], resumed["max_duration_s"]) == (2, 9)
    assert [change["field"] for change in resumed["changes"]] == ["max_duration_s", "priority"]


def running_of_another_team(api: ApiHouse) -> tuple[str, dict[str, str]]:
    """A job of another team on slot 0 of node-0, and that team's headers."""
    api.node()
    theirs = api.other_team()
    files = {"file": ("d.zip", api.client.get(f"/v1/files/{api.data_set('a', 'b')}/content").content)}
    file = api.client.post("/v1/files", files=files, data={"purpose": "fine-tune"}, headers=theirs).json()[
        "id"
    ]
    body = {"model": "resnet18", "weights": "none", "training_file": file}
    job: str = api.client.post(JOBS, json=body, headers=theirs).json()["id"]
    with transaction(api.engine) as session:
        assert place(session, Placement(job, (Part("node-0", (0,)),)))
    api.move(job, JobState.RUNNING)
    return job, theirs


def test_an_operator_preempts_a_job_of_any_team_and_nobody_else_does(api: ApiHouse) -> None:
    job, theirs = running_of_another_team(api)
    refused(api.client.post(f"{JOBS}/{job}/preempt", headers=theirs), 403, None, "role 'admin'", "'member'")
    refused(api.client.post(f"{JOBS}/{job}/pause"), 404, None, job)
    for _ in range(2):
        leaving = post(api, job, "preempt")
        assert (leaving["phase"], leaving["stop_reason"]) == ("stopping", "preempt")
    told = api.client.get(f"{JOBS}/{job}/events", headers=theirs).json()["data"][0]
    assert (told["data"]["old"], told["data"]["new"]) == ("running", "stopping")
    refused(api.client.post(f"{JOBS}/ftjob-none/preempt"), 404, None, "ftjob-none")


def test_who_may_only_look_stops_nothing(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    for action in ("pause", "resume", "cancel", "preempt"):
        refused(api.client.post(f"{JOBS}/{job}/{action}", headers=api.viewer()), 403, None, "'viewer'")
    assert api.client.get(f"{JOBS}/{job}").json()["phase"] == "queued"


def test_a_job_without_slots_has_none_to_hand_back(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    error = refused(api.client.post(f"{JOBS}/{job}/preempt"), 409, None, "is queued: it holds no slots")
    assert error["code"] == "job_holds_no_slots"


def test_a_node_tells_each_team_of_its_own_jobs_only(api: ApiHouse) -> None:
    job, theirs = running_of_another_team(api)
    for path in ("/v1/nodes/node-0", "/v1/nodes"):
        for headers, seen in ((theirs, job), (api.viewer(), None), ({}, job)):
            answer = api.client.get(path, headers=headers).json()
            node = answer["data"][0] if path.endswith("nodes") else answer
            held, free = node["slots"]
            assert (held["state"], held["job_id"]) == ("held", seen)
            assert (free["state"], free["job_id"]) == ("free", None)
    refused(api.client.get("/v1/nodes/node-1"), 404, None, "node-1", "nearest names are node-0")


def test_a_node_is_drained_and_undrained_by_an_operator_alone(api: ApiHouse) -> None:
    api.node()
    for action in ("drain", "undrain"):
        path = f"/v1/nodes/node-0/{action}"
        refused(api.client.post(path, headers=api.other_team()), 403, None, "role 'admin'")
        refused(api.client.post(f"/v1/nodes/node-9/{action}"), 404, None, "node-0")
    drained = [api.client.post("/v1/nodes/node-0/drain").json() for _ in range(2)]
    assert drained[0] == drained[1]
    assert (drained[0]["state"], drained[0]["drained_at"] is not None) == ("draining", True)
    api.node()
    assert api.client.get("/v1/nodes/node-0").json()["state"] == "draining", "its worker's restart"
    for _ in range(2):
        node = api.client.post("/v1/nodes/node-0/undrain").json()
        assert (node["state"], node["drained_at"]) == ("suspect", None)
