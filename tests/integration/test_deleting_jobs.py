"""A job that is over can be deleted: gone for its team, refused where another needs it; the rest is whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from api_house import JOBS, SMALL, ApiHouse, api_on, refused
from sqlalchemy import select

from api.services import submit as submitting
from shared.db import deletion
from shared.db.engine import transaction
from shared.db.models import Event, Job
from shared.db.scope import Scope
from shared.domain.job import JobState
from shared.settings import Settings

EXTRACTIONS = "/v1/feature_extraction/jobs"
SUCCEEDED = (JobState.DISPATCHED, JobState.RUNNING, JobState.SUCCEEDED)


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def test_a_deleted_job_is_missing_everywhere(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job, other = (api.job(training_file=file)["id"] for _ in range(2))
    api.add_artifact(job, "model.safetensors", b"weights")
    api.move(job, *SUCCEEDED)

    answer = api.client.delete(f"{JOBS}/{job}")
    with transaction(api.engine) as session:
        last = session.scalars(select(Event).where(Event.job_id == job).order_by(Event.seq.desc())).first()
        assert last is not None
        assert (last.data, last.actor[:8]) == ({"code": "deleted"}, "api:key-")
    assert answer.json() == {"id": job, "object": "fine_tuning.job", "deleted": True}
    for path in (
        "",
        "/events",
        "/artifacts",
        "/artifacts/model.safetensors",
        "/metrics",
        "/checkpoints",
        "/logs",
    ):
        refused(api.client.get(f"{JOBS}/{job}{path}"), 404, None, job)
    stream = api.client.get(f"{JOBS}/{job}/events", headers={"Accept": "text/event-stream"})
    refused(stream, 404, None, job)
    for action in ("cancel", "pause", "resume"):
        refused(api.client.post(f"{JOBS}/{job}/{action}"), 404, None, job)
    refused(api.client.delete(f"{JOBS}/{job}"), 404, None, job)
    assert [one["id"] for one in api.client.get(JOBS).json()["data"]] == [other]
    refused(api.submit(model=job, weights=None, training_file=file), 422, "model", job)
    assert 'state="succeeded"} 0' in api.client.get("/metrics").text
    assert api.client.delete(f"/v1/files/{file}").status_code == 409
    api.client.post(f"{JOBS}/{other}/cancel")
    assert api.client.delete(f"/v1/files/{file}").status_code == 200


def test_an_extraction_is_deleted_in_its_own_place(api: ApiHouse) -> None:
    body = {**SMALL, "input_file": api.data_set("a", "b"), "modules": ["fc"]}
    job = api.client.post(EXTRACTIONS, json=body).json()["id"]
    api.client.post(f"{EXTRACTIONS}/{job}/cancel")
    refused(api.client.delete(f"{JOBS}/{job}"), 404, None, job)
    assert api.client.delete(f"{EXTRACTIONS}/{job}").json()["object"] == "feature_extraction.job"
    refused(api.client.get(f"{EXTRACTIONS}/{job}"), 404, None, job)


def test_only_a_job_that_is_over_is_deleted(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    for state in (None, JobState.DISPATCHED, JobState.RUNNING):
        if state is not None:
            api.move(job, state)
        error = refused(api.client.delete(f"{JOBS}/{job}"), 409, None, job, "cancel it first")
        assert error["code"] == "job_not_final"


def test_a_base_stays_while_a_job_needs_it_and_what_was_built_on_it_stays_whole(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    base = api.job(training_file=file)["id"]
    api.move(base, *SUCCEEDED)
    user = api.job(model=base, weights=None, training_file=file)["id"]
    body = {"model": base, "input_file": file, "modules": ["fc"]}
    extraction = api.client.post(EXTRACTIONS, json=body).json()["id"]

    error = refused(api.client.delete(f"{JOBS}/{base}"), 409, None, base)
    assert error["code"] == "job_in_use"
    assert user in error["message"] or extraction in error["message"]
    api.move(user, *SUCCEEDED)
    refused(api.client.delete(f"{JOBS}/{base}"), 409, None, extraction)
    api.client.post(f"{EXTRACTIONS}/{extraction}/cancel")
    assert api.client.delete(f"{JOBS}/{base}").status_code == 200

    built = api.client.get(f"{JOBS}/{user}").json()
    assert (built["status"], built["weights"]) == ("succeeded", base)
    assert api.client.get(f"{EXTRACTIONS}/{extraction}").json()["model"] == base
    assert api.job(model=user, weights=None, training_file=file)["status"] == "queued"


def test_who_may_not_change_and_other_teams_delete_nothing(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    api.move(job, JobState.CANCELLED)
    refused(api.client.delete(f"{JOBS}/{job}", headers=api.viewer()), 403, None, "viewer")
    refused(api.client.delete(f"{JOBS}/{job}", headers=api.other_team()), 404, None, job)
    assert api.client.get(f"{JOBS}/{job}").status_code == 200


def test_a_base_that_is_deleted_while_a_job_is_planned_on_it_takes_the_job_along(
    api: ApiHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion commits between the reading of the base and the storing of the job that names it."""
    file = api.data_set("a", "b")
    base = api.job(training_file=file)["id"]
    api.move(base, *SUCCEEDED)
    with transaction(api.engine) as session:
        team = session.get_one(Job, base).team_id
    is_deleted, is_planned = threading.Event(), threading.Event()

    def delete_meanwhile() -> None:
        assert is_planned.wait(60)
        with transaction(api.engine) as session:
            deletion.delete_job(Scope(session, team), base, actor="test")
        is_deleted.set()

    resolve = submitting.resolve_job

    def resolve_slowly(*given: Any, **named: Any) -> Any:
        found = resolve(*given, **named)
        is_planned.set()
        assert is_deleted.wait(60)
        return found

    monkeypatch.setattr(submitting, "resolve_job", resolve_slowly)
    with ThreadPoolExecutor(1) as pool:
        deleted = pool.submit(delete_meanwhile)
        answer = api.submit(model=base, weights=None, training_file=file)
        deleted.result()
    refused(answer, 422, "model", base)
    assert api.count(Job) == 1
