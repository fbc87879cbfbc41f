"""Teams and keys: who may make, see and end them, and that a key that has ended opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from api_server import served
from httpx import Response
from sqlalchemy import select, text
from waiting import eventually

from shared.db.engine import transaction
from shared.db.keys import find_key, note_use
from shared.db.models import ApiKey
from shared.settings import Settings


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def new_team(api: ApiHouse, name: str) -> str:
    answer = api.client.post("/v1/teams", json={"name": name})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def new_key(api: ApiHouse, role: str, **asked: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/keys", json={"role": role, "name": f"a {role}", **asked})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def with_key(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


def own_key_id(api: ApiHouse) -> str:
    key = api.client.headers["Authorization"].removeprefix("Bearer ")
    with transaction(api.engine) as session:
        found = find_key(session, key)
    assert found is not None
    return found.caller.key_id


def test_a_team_and_its_keys_from_first_to_last(api: ApiHouse) -> None:
    team = new_team(api, "vision")
    owner = new_key(api, "owner", team="vision")
    member = api.client.post(
        "/v1/keys", json={"role": "member", "name": "nightly", "expires_in_s": 3600}, headers=with_key(owner)
    ).json()

    assert (member["team"], member["team_name"], member["status"]) == (team, "vision", "valid")
    assert member["expires_at"] == pytest.approx(member["created_at"] + 3600, abs=1)
    assert member["key"].startswith(member["prefix"])
    assert len(member["key"]) >= len("thaw_") + 22, "128 random bits at least"
    assert api.client.get("/v1/files", headers=with_key(member)).status_code == 200
    listed = api.client.get("/v1/keys", headers=with_key(owner)).json()["data"]
    assert [key["id"] for key in listed] == [member["id"], owner["id"]]
    assert all("key" not in key and member["key"] not in str(key) for key in listed)

    revoked = api.client.post(f"/v1/keys/{member['id']}/revoke", headers=with_key(owner)).json()
    again = api.client.post(f"/v1/keys/{member['id']}/revoke", headers=with_key(owner)).json()
    assert revoked["status"] == "revoked"
    assert again["revoked_at"] == revoked["revoked_at"]
    refused(api.client.get("/v1/files", headers=with_key(member)), 401, None, "was revoked")

    assert api.client.delete("/v1/teams/vision").json() == {"id": team, "object": "team", "deleted": True}
    refused(api.client.get("/v1/files", headers=with_key(owner)), 401, None, "was revoked")
    refused(api.client.get(f"/v1/teams/{team}"), 404, None, team)
    assert new_team(api, "vision") != team


def test_who_sees_and_manages_which_keys(api: ApiHouse) -> None:
    ours, theirs = new_team(api, "ours"), new_team(api, "theirs")
    keys = {role: new_key(api, role, team=ours) for role in ("admin", "owner", "member", "viewer")}
    foreign = new_key(api, "member", team=theirs)

    def seen_by(role: str) -> set[str]:
        answer = api.client.get("/v1/keys", headers=with_key(keys[role]))
        return {key["id"] for key in answer.json()["data"]}

    team = {key["id"] for key in keys.values()}
    assert seen_by("admin") == team | {foreign["id"], own_key_id(api)}
    assert seen_by("owner") == team
    assert seen_by("member") == {keys["member"]["id"]}
    assert seen_by("viewer") == {keys["viewer"]["id"]}

    owner = with_key(keys["owner"])
    for asked in ({"role": "admin"}, {"role": "admin", "team": ours}):
        answer = api.client.post("/v1/keys", json={"name": "x", **asked}, headers=owner)
        refused(answer, 403, "role", "admins alone")
    refused(api.client.post(f"/v1/keys/{keys['admin']['id']}/revoke", headers=owner), 403, "role", "admins")
    for role in ("member", "viewer"):
        asked = {"name": "x", "role": "viewer"}
        refused(api.client.post("/v1/keys", json=asked, headers=with_key(keys[role])), 403, None, role)
        own = f"/v1/keys/{keys[role]['id']}/revoke"
        refused(api.client.post(own, headers=with_key(keys[role])), 403, None, role)
        assert api.client.get(f"/v1/keys/{keys[role]['id']}", headers=with_key(keys[role])).status_code == 200
    assert [t["id"] for t in api.client.get("/v1/teams", headers=owner).json()["data"]] == [ours]
    refused(api.client.post("/v1/teams", json={"name": "more"}, headers=owner), 403, None, "admin")
    refused(api.client.delete("/v1/teams/ours", headers=owner), 403, None, "admin")


def test_another_team_and_its_keys_cannot_be_told_from_none(api: ApiHouse) -> None:
    new_team(api, "ours")
    theirs = new_team(api, "theirs")
    owner = with_key(new_key(api, "owner", team="ours"))
    foreign = new_key(api, "member", team=theirs)["id"]

    def answers(team: str, key: str) -> list[Response]:
        asked = {"name": "x", "role": "viewer", "team": team}
        return [
            api.client.get(f"/v1/teams/{team}", headers=owner),
            api.client.get("/v1/teams", params={"after": team}, headers=owner),
            api.client.get("/v1/keys", params={"team": team}, headers=owner),
            api.client.get("/v1/keys", params={"after": key}, headers=owner),
            api.client.get(f"/v1/keys/{key}", headers=owner),
            api.client.post(f"/v1/keys/{key}/revoke", headers=owner),
            api.client.post("/v1/keys", json=asked, headers=owner),
        ]

    for real, made_up in zip(answers(theirs, foreign), answers("team-0", "key-0"), strict=True):
        assert real.status_code == made_up.status_code != 200
        assert real.text.replace(theirs, "ID").replace(foreign, "ID") == made_up.text.replace(
            "team-0", "ID"
        ).replace("key-0", "ID")
    assert api.client.get("/v1/teams/theirs", headers=owner).status_code == 404


def test_what_cannot_be_meant_is_refused_with_its_field(api: ApiHouse) -> None:
    for name in ("", "Vision", "a b", "team-x", "-a", "a" * 64, "a\0"):
        refused(api.client.post("/v1/teams", json={"name": name}), 422, "name")
    refused(api.client.post("/v1/teams", json={"name": "default"}), 409, "name", "already")
    good = {"role": "member", "name": "x"}
    for change, param in (
        ({"role": "boss"}, "role"),
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 1.5}, "expires_in_s"),
        ({"team": "nobody"}, "team"),
        ({"scope": "all"}, "scope"),
    ):
        refused(api.client.post("/v1/keys", json=good | change), 422, param)
    headers = {"Idempotency-Key": "a"}
    refused(api.client.post("/v1/keys", json=good, headers=headers), 422, "Idempotency-Key", "revoked")


def test_lists_are_paged(api: ApiHouse) -> None:
    teams = [new_team(api, f"t{n}") for n in range(3)]
    keys = [new_key(api, "viewer", team="t0")["id"] for _ in range(3)]
    for path, params, ids in (("/v1/teams", {}, teams), ("/v1/keys", {"team": "t0"}, keys)):
        first = api.client.get(path, params={**params, "limit": 2}).json()
        assert ([item["id"] for item in first["data"]], first["has_more"]) == (ids[:0:-1], True)
        rest = api.client.get(path, params={**params, "limit": 2, "after": first["last_id"]}).json()
        assert rest["data"][0]["id"] == ids[0]
        oldest = api.client.get(path, params={**params, "order": "asc"}).json()["data"]
        assert [item["id"] for item in oldest][-3:] == ids


def test_a_key_ends_by_itself(api: ApiHouse) -> None:
    key = new_key(api, "viewer", expires_in_s=1)
    eventually(lambda: api.client.get("/v1/files", headers=with_key(key)).status_code == 401, within_s=30)
    refused(api.client.get("/v1/files", headers=with_key(key)), 401, None, "has expired")
    assert api.client.get(f"/v1/keys/{key['id']}").json()["status"] == "expired"


def test_the_last_valid_admin_key_stays(api: ApiHouse) -> None:
    own = own_key_id(api)
    refused(api.client.post(f"/v1/keys/{own}/revoke"), 409, None, "last valid key", "another first")
    refused(api.client.delete("/v1/teams/default"), 409, None, "last valid key")

    gone = new_key(api, "admin", expires_in_s=1)
    eventually(lambda: api.client.get("/v1/files", headers=with_key(gone)).status_code == 401, within_s=30)
    refused(api.client.post(f"/v1/keys/{own}/revoke"), 409, None, "last valid key")
    assert api.client.post(f"/v1/keys/{gone['id']}/revoke").status_code == 200


def test_of_two_admins_who_revoke_one_another_at_once_one_stays(api: ApiHouse) -> None:
    for _ in range(3):
        other = new_key(api, "admin")
        asked = ((own_key_id(api), with_key(other)), (other["id"], dict(api.client.headers)))
        with ThreadPoolExecutor(2) as pool:
            revokings = [
                pool.submit(api.client.post, f"/v1/keys/{key}/revoke", headers=headers)
                for key, headers in asked
            ]
        codes = sorted(revoking.result().status_code for revoking in revokings)
        # Whoever came too late was let in with a key that had not ended yet, or was not.
        assert codes in ([200, 401], [200, 409])
        if api.client.get("/v1/keys").status_code == 401:
            api.client.headers.update(with_key(other))
        assert api.client.get("/v1/keys").status_code == 200


def test_a_team_that_owns_something_stays(api: ApiHouse) -> None:
    new_team(api, "busy")
    key = with_key(new_key(api, "member", team="busy"))
    admin = dict(api.client.headers)
    api.client.headers.update(key)
    file = api.data_set("a", "b")
    job = api.job(training_file=file)["id"]
    refused(api.client.delete("/v1/teams/busy", headers=admin), 409, "confirm", "1 job and 1 file;")
    assert api.client.post(f"{JOBS}/{job}/cancel").status_code == 200
    assert api.client.delete(f"{JOBS}/{job}").status_code == 200
    refused(api.client.delete("/v1/teams/busy", headers=admin), 409, "confirm", "owns 1 file;")
    assert api.client.delete(f"/v1/files/{file}").status_code == 200
    assert api.client.delete("/v1/teams/busy", headers=admin).status_code == 200


def test_the_use_of_a_key_is_noted_once_a_minute_and_waits_for_nobody(api: ApiHouse) -> None:
    key = new_key(api, "viewer")

    def last_used() -> int | None:
        used: int | None = api.client.get(f"/v1/keys/{key['id']}").json()["last_used_at"]
        return used

    assert last_used() is None
    api.client.get("/v1/files", headers=with_key(key))
    eventually(lambda: last_used() is not None, within_s=30)
    with transaction(api.engine) as session:
        first = session.get_one(ApiKey, key["id"]).last_used_at
        note_use(session, [key["id"]])
    with transaction(api.engine) as session:
        assert session.get_one(ApiKey, key["id"]).last_used_at == first
        session.execute(text("update api_keys set last_used_at = last_used_at - interval '61 s'"))
    with transaction(api.engine) as holder:
        holder.execute(select(ApiKey).where(ApiKey.id == key["id"]).with_for_update())
        with transaction(api.engine) as session:
            note_use(session, [key["id"]])
        assert api.client.get("/v1/files", headers=with_key(key)).status_code == 200


def test_a_stream_ends_with_the_key_that_opened_it(settings: Settings, tmp_path: Path) -> None:
    with api_on(settings) as house, served(settings, tmp_path / "log") as address:
        job = house.job(training_file=house.data_set("a", "b"))["id"]
        keys = [new_key(house, "viewer") for _ in range(3)]
        streams = [_Stream(f"{address}{JOBS}/{job}/events", with_key(key)) for key in keys]
        eventually(lambda: all(stream.lines for stream in streams), within_s=30)

        assert house.client.post(f"/v1/keys/{keys[0]['id']}/revoke").status_code == 200
        with transaction(house.engine) as session:
            session.get_one(ApiKey, keys[1]["id"]).expires_at = session.scalar(select(text("now()")))
        # Half a second lies between two looks; the rest is for a machine that is busy.
        for stream in streams[:2]:
            stream.thread.join(timeout=10)
        assert [stream.thread.is_alive() for stream in streams] == [False, False, True]

        house.client.post(f"{JOBS}/{job}/cancel")
        streams[2].thread.join(timeout=30)
        told = [any("cancelled" in line for line in stream.lines) for stream in streams]
        assert told == [False, False, True]


class _Stream:
    """Reads a job's stream in a thread, to its end."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._url, self._headers = url, headers | {"Accept": "text/event-stream"}
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with httpx.stream("GET", self._url, headers=self._headers, timeout=60) as answer:
            for line in answer.iter_lines():
                self.lines.append(line)
