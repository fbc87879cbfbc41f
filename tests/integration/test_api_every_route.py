"""Every route of the OpenAPI document, asked by the wrong team, the wrong role, and without a good key.

Who may call what, and what can be named where, stands in `every_route.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders, refused
from every_route import EVERYBODY, PLAIN, PUBLIC, ROUTES, Route, routes_of
from httpx import Response
from sqlalchemy import func
from stored_checkpoints import store_checkpoint

from shared.db.engine import transaction
from shared.db.keys import add_key, make_team
from shared.db.models import ApiKey
from shared.domain.job import JobState

EXTRACTIONS = "/v1/feature_extraction/jobs"
MADE_UP = {
    "team": "team-0",
    "key": "key-0",
    "file": "file-0",
    "job": "ftjob-0",
    "extraction": "fxjob-0",
    "checkpoint": "ftckpt-0",
}
_DONE = (JobState.DISPATCHED, JobState.RUNNING, JobState.SUCCEEDED)


@dataclass(frozen=True)
class Team:
    """A team with one object of each kind; its keys' headers by role; the headers of keys that have ended."""

    ids: dict[str, str]
    roles: dict[str, dict[str, str]]
    ended: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def database_url(postgres: Any, template: str) -> Iterator[str]:
    """One database for all of these tests: what is refused changes nothing, which they prove."""
    name = "every_route"
    postgres.create_database(name, template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def house(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHouse]:
    from shared.settings import Settings  # noqa: PLC0415 - as the fixture `settings` does

    store = tmp_path_factory.mktemp("store")
    settings = Settings(database_url=database_url, redis_url="redis://unused", store_url=store.as_uri())
    with api_on(settings) as found:
        found.node("node-0")
        yield found


@pytest.fixture(scope="module")
def ours(house: ApiHouse) -> Team:
    return found_team(house, "ours")


@pytest.fixture(scope="module")
def theirs(house: ApiHouse) -> Team:
    return found_team(house, "theirs")


def found_team(house: ApiHouse, name: str) -> Team:
    with transaction(house.engine) as session:
        team_id = make_team(session, name)
        made = {role: add_key(session, team_id, name=role, role=role) for role in sorted(EVERYBODY)}
        over = {end: add_key(session, team_id, name=end, role="owner") for end in ("revoked", "expired")}
        over["revoked"][0].revoked_at = session.scalar(func.now().select())
        over["expired"][0].expires_at = session.scalar(func.now().select())
    roles = {role: _bearer(key) for role, (_, key) in made.items()}
    ended = {end: _bearer(key) for end, (_, key) in over.items()} | {
        "unknown": _bearer("thaw_nobody"),
        "none": {"Authorization": ""},
        "of another scheme": {"Authorization": f"Basic {made['owner'][1]}"},
    }
    ids = {"team": team_id, "key": made["viewer"][0].id, **_work(house, name, roles["member"])}
    return Team(ids, roles, ended)


def _work(house: ApiHouse, name: str, headers: dict[str, str]) -> dict[str, str]:
    """A file, a fine-tuning job with a result and a checkpoint, and a feature extraction, by kind."""

    def post(path: str, **request: Any) -> str:
        answer = house.client.post(path, headers=headers, **request)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    form = {"files": {"file": ("a.zip", class_folders("a", "b"))}, "data": {"purpose": "fine-tune"}}
    base = {"model": "resnet18", "weights": "none"}
    file = post("/v1/files", **form)
    job = post(JOBS, json={**base, "training_file": file})
    extraction = post(EXTRACTIONS, json={**base, "input_file": file, "modules": ["fc"]})
    for one in (job, extraction):
        house.move(one, *_DONE)
        house.add_artifact(one, "model.safetensors", b"content")
    store_checkpoint(house, job, f"ftckpt-{name}", 1)
    return {"file": file, "job": job, "extraction": extraction, "checkpoint": f"ftckpt-{name}"}


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(house: ApiHouse) -> dict[str, dict[str, Any]]:
    document = house.client.get("/openapi.json").json()
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def ask(
    house: ApiHouse,
    name: str,
    ids: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    naming: Mapping[str, str] | None = None,
) -> Response:
    """Call a route about these objects. `naming`: parameters, or fields of the body, with other values."""
    method, _, path = name.partition(" ")
    route, naming = ROUTES[name], naming or {}
    job = ids["extraction"] if path.startswith(EXTRACTIONS) else ids["job"]
    artifact = "state.pt" if "checkpoints" in path else "model.safetensors"
    places = {
        "job_id": job,
        "file_id": ids["file"],
        "key_id": ids["key"],
        "team": ids["team"],
        "checkpoint_id": ids["checkpoint"],
        "node_id": "node-0",
        "name": "resnet18" if path.startswith("/v1/models") else artifact,
    }
    request: dict[str, Any] = {}
    if route.is_form:
        request = {"files": {"file": ("a.zip", class_folders("a"))}, "data": {"purpose": "fine-tune"}}
    elif route.body is not None:
        filled = {key: _filled(value, ids) for key, value in route.body.items()}
        request = {"json": filled | dict(naming)}
        if "job" in MADE_UP and str(naming.get("model", "")).startswith("ftjob-"):
            request["json"].pop("weights")
    else:
        request = {"params": dict(naming)}
    return house.client.request(method, path.format(**places), headers=dict(headers), **request)


def _filled(value: Any, ids: Mapping[str, str]) -> Any:
    return ids[value[1:-1]] if isinstance(value, str) and value.startswith("{") else value


def is_about_a_team(name: str) -> bool:
    """Whether the path names something that belongs to a team."""
    return any(f"{{{place}}}" in name for place in ("job_id", "file_id", "key_id", "team"))


def routes(fits: Callable[[str, Route], bool]) -> Iterator[tuple[str, Route]]:
    return ((name, route) for name, route in ROUTES.items() if fits(name, route))


def test_every_route_parameter_and_field_is_covered(house: ApiHouse) -> None:
    found = operations(house)
    assert found.keys() == ROUTES.keys(), "add what is new to every_route.py, with who may call it"
    hidden = {route.path for route in routes_of(house.client.app) if not route.include_in_schema}
    assert hidden, "the streams of events"
    documented = {name.partition(" ")[2] for name in ROUTES}
    assert {path for path in hidden if path.startswith("/v1/")} <= documented, "nothing is left out of it"
    schemas = house.client.get("/openapi.json").json()["components"]["schemas"]
    for name, operation in found.items():
        asked = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
        asked += _fields_of_body(operation, schemas)
        unknown = set(asked) - ROUTES[name].named.keys() - ROUTES[name].plain - PLAIN
        assert not unknown, f"{name}: say in every_route.py whether {unknown} name objects"


def _fields_of_body(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    for part in (schema, *schema.get("anyOf", [])):
        yield from schemas.get(part.get("$ref", "").rpartition("/")[2], {}).get("properties", {})


def test_without_a_good_key_nothing_is_told(house: ApiHouse, ours: Team) -> None:
    for name, _ in routes(lambda _, route: route.who is not PUBLIC):
        for what, headers in ours.ended.items():
            for accept in ("*/*", "text/event-stream"):
                answer = ask(house, name, ours.ids, {**headers, "Accept": accept})
                assert answer.status_code == 401, (name, what, answer.text)
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_role_that_does_not_suffice_is_refused_before_anything_is_looked_up(
    house: ApiHouse, ours: Team, theirs: Team
) -> None:
    before = state_of(house, ours)
    for name, route in routes(lambda _, route: route.who is not PUBLIC):
        for role in EVERYBODY - route.who:
            answers = [ask(house, name, ids, ours.roles[role]) for ids in (ours.ids, theirs.ids, MADE_UP)]
            for answer in answers:
                refused(answer, 403, None, role)
            assert len({answer.text for answer in answers}) == 1, name
    assert state_of(house, ours) == before


def test_another_teams_object_cannot_be_told_from_one_that_never_was(
    house: ApiHouse, ours: Team, theirs: Team
) -> None:
    before = state_of(house, theirs)
    for name, route in routes(lambda name, _: is_about_a_team(name)):
        for role in route.who - {"admin"}:
            for accept in ("*/*", "text/event-stream"):
                headers = {**ours.roles[role], "Accept": accept}
                real, none = (ask(house, name, ids, headers) for ids in (theirs.ids, MADE_UP))
                assert real.status_code == 404, (name, role, real.text)
                _assert_alike(real, none, theirs.ids, name)
    # An admin's jobs and files are those of the own team too; only what runs the service reaches over all.
    for name, route in routes(lambda name, _: "job_id" in name or "file_id" in name):
        if route.who > {"admin"}:
            real, none = (ask(house, name, ids, ours.roles["admin"]) for ids in (theirs.ids, MADE_UP))
            assert real.status_code == 404, (name, real.text)
            _assert_alike(real, none, theirs.ids, name)
    assert state_of(house, theirs) == before


def test_what_a_request_names_of_another_team_cannot_be_told_from_none(
    house: ApiHouse, ours: Team, theirs: Team
) -> None:
    asked = 0
    for name, route in routes(lambda _, route: bool(route.named)):
        for field, kind in route.named.items():
            for role in route.who - {"admin"}:
                real, none = (
                    ask(house, name, ours.ids, ours.roles[role], naming={field: ids[kind]})
                    for ids in (theirs.ids, MADE_UP)
                )
                assert real.status_code in (404, 422), (name, field, real.text)
                _assert_alike(real, none, theirs.ids, f"{name} {field}")
                asked += 1
    assert asked > 30


def test_another_teams_checkpoint_is_none_of_an_own_job(house: ApiHouse, ours: Team, theirs: Team) -> None:
    """Below a path of the own team's, where the job is found."""
    names = [name for name, _ in routes(lambda name, _: "checkpoint_id" in name)]
    assert len(names) == 2
    named = [{"naming": {"after": ids["checkpoint"]}} for ids in (theirs.ids, MADE_UP)]
    lists = [
        ask(house, f"get {JOBS}/{{job_id}}/checkpoints", ours.ids, ours.roles["owner"], **one)
        for one in named
    ]
    _assert_alike(*lists, theirs.ids, "after")
    for name in names:
        real, none = (
            ask(house, name, {**ours.ids, "checkpoint": ids["checkpoint"]}, ours.roles["owner"])
            for ids in (theirs.ids, MADE_UP)
        )
        assert real.status_code == 404, (name, real.text)
        _assert_alike(real, none, theirs.ids, name)


def test_no_list_holds_anything_of_another_team(house: ApiHouse, ours: Team, theirs: Team) -> None:
    for name, _ in routes(lambda name, route: name.startswith("get ") and route.who == EVERYBODY):
        if "{" in name:
            continue
        for role in EVERYBODY - {"admin"}:
            answer = ask(house, name, ours.ids, ours.roles[role])
            assert answer.status_code == 200, (name, answer.text)
            for kind, id in theirs.ids.items():
                assert id not in answer.text, (name, kind)


def test_whoever_may_call_a_route_is_let_in(house: ApiHouse, ours: Team) -> None:
    """Last, as it changes what it asks for: without it, a table that forbids too much would go unnoticed."""
    for name, route in sorted(ROUTES.items(), key=lambda entry: entry[0].startswith("delete ")):
        for role in ("viewer", "member", "owner"):
            if role in route.who:
                answer = ask(house, name, ours.ids, ours.roles[role])
                own_key_ended = answer.status_code == 401 and role == "viewer"
                assert answer.status_code not in (401, 403) or own_key_ended, (name, role, answer.text)


def state_of(house: ApiHouse, team: Team) -> list[Any]:
    """All that the team's owner sees of its objects, and how its keys are."""
    seen = [
        house.client.get(path, headers=team.roles["owner"]).json()
        for path in (
            f"{JOBS}/{team.ids['job']}",
            f"{JOBS}/{team.ids['job']}/checkpoints",
            f"{EXTRACTIONS}/{team.ids['extraction']}",
            "/v1/files",
            JOBS,
            EXTRACTIONS,
            "/v1/nodes",
        )
    ]
    with transaction(house.engine) as session:
        ended = [session.get_one(ApiKey, team.ids["key"]).revoked_at]
    return [*seen, ended]


def _assert_alike(real: Response, none: Response, ids: Mapping[str, str], where: str) -> None:
    """The same answer but for the id that was sent."""
    told, expected = real.text, none.text
    for kind, id in ids.items():
        told, expected = told.replace(id, kind), expected.replace(MADE_UP[kind], kind)
    assert (real.status_code, told) == (none.status_code, expected), where
    assert real.headers.keys() == none.headers.keys(), where
