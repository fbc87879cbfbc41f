"""The audit log: every write request leaves who, what, when, from where, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from sqlalchemy import text

from shared.db.engine import transaction
from shared.db.keys import make_team
from shared.settings import Settings


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def entries(api: ApiHouse, **asked: Any) -> list[dict[str, Any]]:
    answer = api.client.get("/v1/audit", params=asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def told(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["role"], entry["method"], entry["route"], entry["target"], entry["status"]


def test_what_is_done_is_written_down_and_what_is_read_is_not(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job = api.job(training_file=file)["id"]
    api.client.get(f"{JOBS}/{job}")
    api.client.post("/v1/fine_tuning/plan", json={"model": "resnet18"})
    cancelled = api.client.post(f"{JOBS}/{job}/cancel", headers={"X-Request-Id": "mine"})

    assert cancelled.status_code == 200
    found = entries(api)
    assert [told(entry) for entry in found] == [
        ("admin", "POST", f"{JOBS}/{{job_id}}/cancel", job, 200),
        ("admin", "POST", JOBS, job, 200),
        ("admin", "POST", "/v1/files", file, 200),
    ]
    last = found[0]
    assert (last["key_name"], last["team_name"], last["client"]) == ("bootstrap", "default", "testclient")
    assert last["request_id"] == "mine"
    assert abs(last["at"] - api.client.get(f"{JOBS}/{job}").json()["finished_at"]) <= 5


def test_a_stranger_leaves_no_entry(api: ApiHouse) -> None:
    for headers in ({"Authorization": "Bearer thaw_nobody"}, {"Authorization": ""}):
        assert api.client.post(f"{JOBS}/ftjob-0/cancel", headers=headers).status_code == 401
    assert entries(api) == []


def test_what_is_refused_is_written_down_too(api: ApiHouse) -> None:
    viewer = api.viewer()
    made = api.client.post("/v1/keys", json={"role": "member", "name": "gone"}).json()
    api.client.post(f"/v1/keys/{made['id']}/revoke")
    ended = {"Authorization": f"Bearer {made['key']}"}
    for headers in (viewer, ended):
        api.client.post(f"{JOBS}/ftjob-0/cancel", headers=headers)
    api.client.post(f"{JOBS}/ftjob-0/cancel")
    api.client.post(JOBS, json={"modell": "resnet18"})
    api.client.post(JOBS, content=b"{")

    cancel = f"{JOBS}/{{job_id}}/cancel"
    found = entries(api, limit=5)
    assert [told(entry) for entry in found] == [
        ("admin", "POST", JOBS, None, 400),
        ("admin", "POST", JOBS, None, 422),
        ("admin", "POST", cancel, "ftjob-0", 404),
        ("member", "POST", cancel, "ftjob-0", 401),
        ("viewer", "POST", cancel, "ftjob-0", 403),
    ]
    assert found[3]["key"] == made["id"]
    assert all(made["key"] not in str(entry) for entry in entries(api))


def test_an_owner_reads_of_the_own_team_alone(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        make_team(session, "ours")
    asked = {"role": "owner", "name": "o", "team": "ours"}
    key = api.client.post("/v1/keys", json=asked).json()
    owner = {"Authorization": f"Bearer {key['key']}"}
    api.client.post("/v1/keys", json={"role": "viewer", "name": "v"}, headers=owner)

    seen = api.client.get("/v1/audit", headers=owner).json()["data"]
    assert [entry["key"] for entry in seen] == [key["id"]]
    refused(api.client.get("/v1/audit", params={"team": "default"}, headers=owner), 404, "team", "default")
    refused(api.client.get("/v1/audit", headers=api.viewer()), 403, None, "viewer")
    assert len(entries(api)) == 2
    assert [entry["key"] for entry in entries(api, team="ours")] == [key["id"]]
    assert [entry["target"] for entry in entries(api, target=key["id"])] == [key["id"]]
    assert [entry["key_name"] for entry in entries(api, key=key["id"])] == ["o"]
    assert entries(api, end=1) == []
    assert len(entries(api, start=1)) == 2


def test_the_log_is_read_a_page_at_a_time(api: ApiHouse) -> None:
    for n in range(5):
        api.client.post(f"{JOBS}/ftjob-{n}/cancel")
    first = api.client.get("/v1/audit", params={"limit": 3}).json()
    rest = api.client.get("/v1/audit", params={"limit": 3, "after": first["last_id"]}).json()
    assert [e["target"] for e in first["data"] + rest["data"]] == [f"ftjob-{n}" for n in (4, 3, 2, 1, 0)]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_a_row_that_cannot_be_written_goes_to_the_log_and_holds_up_nothing(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(text("alter table audit_entries rename to elsewhere"))
    assert api.client.post("/v1/teams", json={"name": "made"}).status_code == 200
    line = next(line for line in api.log if line["event"] == "not in the audit log")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/teams", 200)
    assert api.client.get("/v1/teams/made").status_code == 200
