"""The audit log: every write request leaves who, what, when, from where, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from every_route import routes_of
from sqlalchemy import text, update

from api.audit_trail import AuditedRoute, AuditTrail
from scheduler.reconciling import forget_old_entries
from shared.db import audit
from shared.db.clock import seconds_ago
from shared.db.engine import transaction
from shared.db.keys import make_team
from shared.db.models import AuditEntry
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


def test_what_cannot_be_written_down_is_not_done(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(text("alter table audit_entries rename to elsewhere"))
    assert api.client.post("/v1/teams", json={"name": "made"}).status_code == 500
    line = next(line for line in api.log if line["event"] == "not in the audit log")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/teams", 500)
    refused(api.client.get("/v1/teams/made"), 404, None)


def test_an_upload_that_cannot_be_written_down_goes_to_the_log(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(text("alter table audit_entries rename to elsewhere"))
    file = api.data_set("a", "b")
    line = next(line for line in api.log if line["event"] == "not in the audit log")
    assert (line["route"], line["target"], line["status"]) == ("/v1/files", file, 200)


def test_the_entry_is_there_with_the_change_though_the_process_dies_before_the_answer(
    api: ApiHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = api.data_set("a", "b")

    async def die(*_: Any) -> None:
        raise RuntimeError("nothing is done after the commit")

    monkeypatch.setattr(AuditTrail, "_record", die)
    assert api.submit(training_file=file).status_code == 500
    monkeypatch.undo()
    (job,) = api.client.get(JOBS).json()["data"]
    assert told(entries(api)[0]) == ("admin", "POST", JOBS, job["id"], 200)


def test_a_change_that_fails_as_it_is_committed_is_told_as_it_ended(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(
            text(
                "create function refuse() returns trigger language plpgsql as "
                "$$ begin raise exception 'no'; end $$"
            )
        )
        session.execute(
            text(
                "create constraint trigger late after insert on teams deferrable initially deferred "
                "for each row execute function refuse()"
            )
        )
    assert api.client.post("/v1/teams", json={"name": "made"}).status_code == 500
    assert [told(entry) for entry in entries(api)] == [("admin", "POST", "/v1/teams", None, 500)]


def test_every_route_that_changes_something_is_written_down_with_its_change(api: ApiHouse) -> None:
    writes = {
        (method, route.path): type(route)
        for route in routes_of(api.client.app)
        for method in route.methods & {"POST", "PUT", "PATCH", "DELETE"}
    }
    apart = {("POST", "/v1/files"), ("DELETE", "/v1/files/{file_id}")}
    assert len(writes) > 15
    assert {place for place, kind in writes.items() if kind is not AuditedRoute} == apart


def test_entries_are_kept_for_as_long_as_is_set(api: ApiHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        api.client.post(f"{JOBS}/ftjob-{n}/cancel")
    days = api.settings.audit_keep_s / 86_400
    with transaction(api.engine) as session:
        for target, age in (("ftjob-0", days + 1), ("ftjob-2", days + 2), ("ftjob-4", days - 1)):
            old = update(AuditEntry).where(AuditEntry.target == target)
            session.execute(old.values(at=seconds_ago(age * 86_400)))
    monkeypatch.setattr(audit, "_BATCH", 1)
    left = []
    for _ in range(3):
        forget_old_entries(api.engine, api.settings)
        left.append([entry["target"] for entry in entries(api)])
    assert left == [
        ["ftjob-4", "ftjob-3", "ftjob-1", "ftjob-0"],
        ["ftjob-4", "ftjob-3", "ftjob-1"],
        ["ftjob-4", "ftjob-3", "ftjob-1"],
    ]
