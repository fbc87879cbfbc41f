"""Idempotency-Key: one job a key, whoever sends it how often, and nothing told of other teams' jobs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from api_house import JOBS, SMALL, ApiHouse, api_on, refused
from httpx import Response
from sqlalchemy import func, select, update

from scheduler.reconciling import forget_old_keys
from shared.db.clock import seconds_ago
from shared.db.engine import transaction
from shared.db.models import Event, IdempotencyKey, Job
from shared.domain.job import JobState
from shared.settings import Settings

EXTRACTIONS = "/v1/feature_extraction/jobs"
HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def send(api: ApiHouse, key: str, body: dict[str, Any], path: str = JOBS) -> Response:
    return api.client.post(path, json=body, headers={HEADER: key})


def test_the_same_key_and_body_answer_with_the_same_job(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    first = send(api, "mine", {**SMALL, "training_file": file, "metadata": {"a": "1", "b": "2"}})
    # Other layout, another order, a default spelled out, a shorthand written in full.
    text = (
        f'{{ "training_file": "{file}",\n "metadata": {{"b": "2", "a": "1"}}, "seed": 0, "freeze": "none",'
        '"weights": "none", "model": "resnet18", "hyperparameters": {"n_epochs": "auto"}}'
    )
    headers = {HEADER: "mine", "Content-Type": "application/json"}
    again = api.client.post(JOBS, content=text, headers=headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert (first.headers.get(REPLAYED), again.headers.get(REPLAYED)) == (None, "true")
    assert again.json()["id"] == first.json()["id"]
    assert set(again.json()) == set(first.json())
    assert (api.count(Job), api.count(Event)) == (1, 2)

    api.client.post(f"{JOBS}/{first.json()['id']}/cancel")
    assert send(api, "mine", {**SMALL, "training_file": file, "metadata": {"a": "1", "b": "2"}}).json()[
        "status"
    ] == ("cancelled")
    assert send(api, "another", {**SMALL, "training_file": file}).headers.get(REPLAYED) is None
    assert api.count(Job) == 2


def test_another_request_under_the_same_key_is_refused_with_the_job_it_belongs_to(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job = send(api, "mine", {**SMALL, "training_file": file}).json()["id"]

    other = send(api, "mine", {**SMALL, "training_file": file, "seed": 1})
    assert refused(other, 409, HEADER, job, "another body")["code"] == "idempotency_key_reused"
    extraction = send(api, "mine", {**SMALL, "input_file": file, "modules": ["fc"]}, EXTRACTIONS)
    refused(extraction, 409, HEADER, job)
    assert api.count(Job) == 1


def test_an_extraction_has_its_key_too(api: ApiHouse) -> None:
    body = {**SMALL, "input_file": api.data_set("a", "b"), "modules": ["fc"]}
    first, again = (send(api, "mine", body, EXTRACTIONS) for _ in range(2))
    assert first.json()["id"].startswith("fxjob-")
    assert again.json()["id"] == first.json()["id"]
    assert again.headers[REPLAYED] == "true"


def test_a_refused_request_uses_no_key_up(api: ApiHouse) -> None:
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    refused(send(api, "mine", {**body, "freeze": ["conv9"]}), 422, "freeze.rules[0].freeze[0]")
    assert send(api, "mine", body).status_code == 200
    assert api.count(Job) == 1


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\there", "caf\xe9".encode("latin-1"), b"\x01"])
def test_what_is_no_key_is_refused(api: ApiHouse, key: str | bytes) -> None:
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    answer = api.client.post(JOBS, json=body, headers=[(HEADER, key)])
    refused(answer, 422, HEADER, "1 to 255 printable")
    assert api.count(Job) == 0


def test_longest_and_shortest_keys_are_taken_and_two_are_not(api: ApiHouse) -> None:
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    for key in ("~", "a b" * 85):
        assert send(api, key, body).status_code == 200
    two = api.client.post(JOBS, json=body, headers=[(HEADER, "a"), (HEADER, "a")])
    refused(two, 422, HEADER, "send one")


def test_a_key_that_would_mean_nothing_is_refused(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    key = {HEADER: "a"}
    upload = api.client.post(
        "/v1/files", files={"file": ("d.zip", b"x")}, data={"purpose": "fine-tune"}, headers=key
    )
    refused(upload, 422, HEADER, "/v1/files", "sha256")
    refused(api.client.post(f"{JOBS}/{job}/cancel", headers=key), 422, HEADER, "leave it out")
    refused(api.client.delete(f"{JOBS}/{job}", headers=key), 422, HEADER)
    assert api.client.get(f"{JOBS}/{job}", headers=key).json()["status"] == "queued"


def test_keys_are_a_teams_own(api: ApiHouse) -> None:
    mine = send(api, "shared", {**SMALL, "training_file": api.data_set("a", "b")}).json()["id"]
    theirs = api.other_team()
    content = api.upload(b"", "x")
    assert content.status_code == 422
    api.client.headers.update(theirs)
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    made = send(api, "shared", body)
    assert made.status_code == 200
    assert made.headers.get(REPLAYED) is None
    assert made.json()["id"] != mine


def test_the_key_of_a_deleted_job_reveals_nothing_and_makes_no_other(api: ApiHouse) -> None:
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    job = send(api, "mine", body).json()["id"]
    api.client.post(f"{JOBS}/{job}/cancel")
    assert api.client.delete(f"{JOBS}/{job}").status_code == 200

    for asked in (body, {**body, "seed": 1}):
        error = refused(send(api, "mine", asked), 409, HEADER, "deleted")
        assert job not in error["message"]
    assert api.count(Job) == 1


def test_of_fifty_at_once_on_two_servers_one_makes_the_job(settings: Settings) -> None:
    with api_on(settings) as one, api_on(settings) as other:
        file = one.data_set("a", "b")
        body = {**SMALL, "training_file": file}
        start = Barrier(50)

        def ask(number: int) -> Response:
            start.wait(timeout=60)
            while True:
                answer = send((one, other)[number % 2], "race", body)
                if answer.status_code != 503:
                    return answer

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(ask, range(50)))

        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert [answer.headers.get(REPLAYED) for answer in answers].count(None) == 1
        assert (one.count(Job), one.count(Event)) == (1, 2)


def test_the_next_in_line_goes_on_when_the_first_is_refused(api: ApiHouse) -> None:
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    start = Barrier(12)

    def ask(number: int) -> Response:
        start.wait(timeout=60)
        return send(api, "race", body if number % 2 else {**body, "freeze": ["conv9"]})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    made = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.json()["id"] for answer in made}) == 1
    # The bad request is another one: before the job is there it is refused for itself, then for its key.
    assert {answer.status_code for answer in answers} <= {200, 422, 409}
    assert api.count(Job) == 1


def test_keys_are_kept_for_a_day_and_then_forgotten(api: ApiHouse) -> None:
    body = {**SMALL, "training_file": api.data_set("a", "b")}
    for key, age_s in (("young", 24 * 3600 - 600), ("old", 24 * 3600 + 600)):
        assert send(api, key, body).status_code == 200
        with transaction(api.engine) as session:
            older = update(IdempotencyKey).where(IdempotencyKey.key == key)
            session.execute(older.values(created_at=seconds_ago(age_s)))
    forget_old_keys(api.engine, api.settings)

    with transaction(api.engine) as session:
        assert list(session.scalars(select(IdempotencyKey.key))) == ["young"]
    assert send(api, "young", body).headers[REPLAYED] == "true"
    assert send(api, "old", body).headers.get(REPLAYED) is None
    with transaction(api.engine) as session:
        assert session.scalar(select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED)) == 3
