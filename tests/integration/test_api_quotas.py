"""Quotas and limits over HTTP: set by operators, seen by their team, kept at every submission."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from api_house import ApiHouse, api_on, class_folders, refused
from httpx import Response

from shared.domain.job import JobState
from shared.settings import Settings

QUOTA = "/v1/teams/default/quota"
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def house(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as made:
        yield made


def limit(house: ApiHouse, **limits: Any) -> None:
    answer = house.client.put(QUOTA, json={"limits": limits})
    assert answer.status_code == 200, answer.text


def put(house: ApiHouse, *quotas: dict[str, Any], **body: Any) -> Response:
    return house.client.put(QUOTA, json={"quotas": list(quotas), **body})


def test_what_is_set_is_shown_whole_and_replaces_what_was_there(house: ApiHouse) -> None:
    house.node(accelerator=H100)
    asked = {"accelerator": H100, "nominal_quota": 16, "borrowing_limit": 8, "lending_limit": 4}
    limits = {"max_queued_jobs": 10, "max_devices": 8, "accelerators": [H100]}
    assert put(house, asked, weight=2.5, limits=limits).status_code == 200
    shown = house.client.get(QUOTA).json()
    assert (shown["object"], shown["team"], shown["weight"]) == ("team.quota", "default", 2.5)
    assert shown["quotas"] == [{**asked, "held": 0, "borrowed": 0, "held_on_average": 0.0}]
    unset = ("max_storage_bytes", "max_duration_s", "keep_jobs_days", "keep_files_days")
    assert shown["limits"] == {**limits, **dict.fromkeys(unset)}
    assert put(house).status_code == 200
    again = house.client.get(QUOTA).json()
    assert (again["weight"], again["quotas"], again["limits"]["max_devices"]) == (1.0, [], None)


def test_its_own_team_sees_it_and_operators_alone_set_it(house: ApiHouse) -> None:
    other = house.other_team()
    assert house.client.get("/v1/teams/others/quota", headers=other).json()["team"] == "others"
    assert house.client.get("/v1/teams/others/quota").json()["team"] == "others"
    refused(house.client.put("/v1/teams/others/quota", json={}, headers=other), 403, None, "admin")
    hidden = refused(house.client.get(QUOTA, headers=other), 404, None)
    never = refused(house.client.get("/v1/teams/nobody/quota", headers=other), 404, None)
    assert hidden["message"].replace("default", "nobody") == never["message"]
    refused(house.client.put("/v1/teams/nobody/quota", json={}), 404, None, "no team 'nobody'")


def test_what_would_bind_nobody_is_refused(house: ApiHouse) -> None:
    house.node(accelerator=H100)
    one = {"accelerator": "h100", "nominal_quota": 4}
    refused(put(house, one), 422, "quotas[0].accelerator", "did you mean", H100)
    refused(
        put(house, {**one, "accelerator": "TPU"}), 422, "quotas[0].accelerator", "known: NVIDIA H100", "cpu"
    )
    allowed = {"accelerators": ["cpu", "A100"]}
    refused(
        put(house, limits=allowed), 422, "limits.accelerators[1]", "no node has an accelerator named 'A100'"
    )
    own = {"accelerator": "cpu", "nominal_quota": 4}
    refused(put(house, own, own), 422, None, "'cpu' twice")
    refused(put(house, {**own, "lending_limit": 5}), 422, "quotas[0]", "lending_limit 5", "at most that")
    refused(put(house, {**own, "nominal": 5}), 422, "quotas[0].nominal")
    refused(put(house, weight=0), 422, "weight")
    for days in (0, -1, 1.5):
        refused(put(house, limits={"keep_jobs_days": days}), 422, "limits.keep_jobs_days")


def test_a_job_that_asks_for_more_than_its_team_may_is_refused_and_told_what_would_do(
    house: ApiHouse,
) -> None:
    file = house.data_set("a", "b")
    limit(house, max_devices=2, accelerators=["cpu"], max_duration_s=3600)
    fits = {"training_file": file, "max_duration_s": 3600}
    large = {"resources": {"devices_per_node": 3}}
    refused(
        house.submit(**fits, **large), 422, "resources.devices_per_node", "at most 2 devices", "asks for 3"
    )
    gpu = {"resources": {"accelerator": "cuda"}}
    refused(house.submit(**fits, **gpu), 422, "resources.accelerator", "may run on cpu", "'cuda'")
    refused(
        house.submit(training_file=file), 422, "max_duration_s", "has no limit of its own: give at most 3600"
    )
    longer = {"training_file": file, "max_duration_s": 3601}
    assert (
        refused(house.submit(**longer), 422, "max_duration_s", "asks for 3601")["code"] == "over_team_limit"
    )
    job = house.job(**fits)
    assert house.client.post(f"/v1/fine_tuning/jobs/{job['id']}/pause").status_code == 200
    resume = f"/v1/fine_tuning/jobs/{job['id']}/resume"
    refused(house.client.post(resume, json={"max_duration_s": None}), 422, "max_duration_s", "at most 3600")


def test_features_are_extracted_within_the_limits_too(house: ApiHouse) -> None:
    limit(house, max_devices=1)
    body = {
        "model": "resnet18",
        "weights": "none",
        "input_file": house.data_set("a", "b"),
        "modules": ["layer4"],
    }
    two = {**body, "resources": {"devices_per_node": 2}}
    refused(house.client.post("/v1/feature_extraction/jobs", json=two), 422, "resources.devices_per_node")
    assert house.client.post("/v1/feature_extraction/jobs", json=body).status_code == 200


def test_of_submissions_at_once_only_as_many_wait_as_may(house: ApiHouse) -> None:
    file = house.data_set("a", "b")
    limit(house, max_queued_jobs=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: house.submit(training_file=file), range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 7
    late = refused(
        house.submit(training_file=file), 409, None, "3 jobs of this team wait already", "at most 3"
    )
    assert late["code"] == "too_many_queued_jobs"
    started = next(answer.json()["id"] for answer in answers if answer.status_code == 200)
    house.move(started, JobState.DISPATCHED)
    assert house.submit(training_file=file).status_code == 200


def test_no_more_is_stored_than_a_team_may_keep(house: ApiHouse) -> None:
    content = class_folders("a", "b")
    first = house.upload(content).json()
    limit(house, max_storage_bytes=2 * len(content))
    assert house.upload(content).status_code == 200
    full = refused(house.upload(content), 413, "file", "0 are left", "delete files")
    assert full["code"] == "team_storage_full"
    assert len(house.stored_bytes()) == 2
    refused(house.submit(training_file=first["id"]), 413, None, "may keep")
    assert house.client.get(QUOTA).json()["stored_bytes"] == 2 * len(content)
