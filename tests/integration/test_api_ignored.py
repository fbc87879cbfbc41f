"""What a request says and nobody would read is refused, with its place: never one of two taken in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders, refused
from httpx import Response

from shared.db.models import File, Job
from shared.settings import Settings


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def test_a_query_parameter_counts_once_unless_it_is_a_list(api: ApiHouse) -> None:
    for query in ("limit=1&limit=2", "limit=1&limit=1", "after=&after="):
        error = refused(api.client.get(f"{JOBS}?{query}"), 422, query.partition("=")[0], "2 times", "once")
        assert error["code"] == "repeated_parameter"
    refused(api.client.get(f"{JOBS}?metadata[a]=1&metadata[a]=2"), 422, "metadata[a]", "2 times")
    assert api.client.get(f"{JOBS}?metadata[a]=1&metadata[b]=2").status_code == 200
    assert api.client.get("/v1/usage?group_by=team&group_by=day").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"model": "resnet18", "model": "resnet50"}', "model"),
        ('{"model": "resnet18", "model": "resnet18"}', "model"),
        ('{"hyperparameters": {"n_epochs": 1, "seed": 2, "n_epochs": 3}}', "hyperparameters.n_epochs"),
        ('{"freeze": {"rules": [{}, {"train": "fc", "train": "fc"}]}}', "freeze.rules[1].train"),
        ('{"metadata": {"a": "1", "a": "2"}, "seed": 1, "seed": 2}', "metadata.a"),
    ],
)
def test_a_field_counts_once(api: ApiHouse, body: str, param: str) -> None:
    json = {"Content-Type": "application/json"}
    for path in (JOBS, "/v1/fine_tuning/plan"):
        error = refused(api.client.post(path, content=body, headers=json), 422, param, "more than once")
        assert error["code"] == "repeated_field"


def test_a_field_of_a_form_counts_once(api: ApiHouse) -> None:
    def post(**form: list[str]) -> Response:
        file = {"file": ("a.zip", class_folders("cat", "dog"))}
        return api.client.post("/v1/files", files=file, data=form)

    refused(post(purpose=["fine-tune", "fine-tune"]), 422, "purpose", "2 times")
    refused(post(purpose=["fine-tune"], file=["here"]), 422, "file", "2 times")
    assert api.count(File) == 0


def test_a_body_where_none_is_read_is_refused_and_nothing_is_done(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("cat", "dog"))["id"]

    for method, path in (
        ("POST", f"{JOBS}/{job}/pause"),
        ("POST", f"{JOBS}/{job}/cancel"),
        ("DELETE", f"{JOBS}/{job}"),
        ("GET", f"{JOBS}/{job}"),
    ):
        for body in ({"priority": 1}, [], "cancel"):
            error = refused(api.client.request(method, path, json=body), 422, None, method, "no body")
            assert error["code"] == "no_effect"
    assert api.client.get(f"{JOBS}/{job}").json()["phase"] == "queued"
    for nothing in (b"", b" {} ", b"null"):
        answer = api.client.post(f"{JOBS}/{job}/pause", content=nothing)
        assert answer.json()["phase"] == "paused"
    assert api.client.post(f"{JOBS}/{job}/resume", json={"priority": 1}).json()["priority"] == 1
    assert api.count(Job) == 1
