"""What every route has in common: who may ask, how a refusal looks, and how the service tells of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders, refused
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.main import create_app
from shared.db.engine import transaction
from shared.db.keys import make_key, make_team
from shared.db.models import Job
from shared.settings import Settings


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def test_everything_of_a_team_asks_for_a_key(api: ApiHouse) -> None:
    document = api.client.get("/openapi.json").json()
    routes = [
        (method, path.replace("{name}", "x").replace("{job_id}", "x").replace("{file_id}", "x"))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    ]
    assert len(routes) > 15
    for method, path in routes:
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer thaw_nobody"}):
            answer = api.client.request(method, path, headers=headers)
            error = refused(answer, 401, None, "key")
            assert error["type"] == "authentication_error"
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key_opens_nothing(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(text("update api_keys set revoked_at = now()"))
    refused(api.client.get("/v1/files"), 401, None, "revoked")


def test_a_viewer_looks_and_changes_nothing(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job = api.job(training_file=file)["id"]
    with transaction(api.engine) as session:
        key = make_key(session, make_team(session, "default"), name="v", role="viewer")
    viewer = {"Authorization": f"Bearer {key}"}

    assert api.client.get(f"{JOBS}/{job}", headers=viewer).status_code == 200
    refused(api.client.post(f"{JOBS}/{job}/cancel", headers=viewer), 403, None, "viewer")
    refused(api.client.delete(f"/v1/files/{file}", headers=viewer), 403, None, "viewer")
    body = {"model": "resnet18", "training_file": file}
    refused(api.client.post(JOBS, json=body, headers=viewer), 403, None, "viewer")
    upload = {"file": ("a.zip", class_folders("a", "b"))}
    answer = api.client.post("/v1/files", files=upload, data={"purpose": "fine-tune"}, headers=viewer)
    refused(answer, 403, None, "viewer")


def test_what_is_no_route_comes_in_the_envelope_too(api: ApiHouse) -> None:
    refused(api.client.get("/v1/nothing"), 404, None, "/openapi.json")
    for path, allowed in (
        ("/v1/files", "GET, POST"),
        ("/v1/files/file-0", "GET, DELETE"),
        ("/docs", "GET, HEAD"),
    ):
        answer = api.client.put(path)
        refused(answer, 405, None, "Allow")
        assert answer.headers["Allow"] == allowed
    refused(api.client.get("/v1/files", params={"limt": 3}), 422, "limt", "limit")
    refused(api.client.get("/v1/files", params={"limit": 0}), 422, "limit", "greater than or equal to 1")
    refused(api.client.get("/v1/files", params={"after": "file-\0"}), 404, None, "file")
    refused(api.client.get(f"{JOBS}/%00"), 404, None)


def test_a_body_that_cannot_be_read_is_refused(api: ApiHouse) -> None:
    def post(content: bytes, kind: str = "application/json") -> None:
        answer = api.client.post(JOBS, content=content, headers={"Content-Type": kind})
        refused(answer, 400, None)

    post(b"{")
    post(b"\xff\xfe\xfa")
    post(b'{"model": "\xff"}')
    post(b"[1, 2]")
    post(b'"text"')
    post(b"[" * 100_000)
    post(b'{"model": "resnet18"}', "text/plain")
    refused(api.client.post(JOBS), 400, None)
    too_long = b'{"model": "' + b"x" * (1024 * 1024) + b'"}'
    refused(api.client.post(JOBS, content=too_long), 413, None, "1,048,576 bytes")


def test_a_request_has_an_id_in_and_out(api: ApiHouse) -> None:
    assert api.client.get("/healthz", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    made = api.client.get("/nothing", headers={"X-Request-Id": "no good\t"}).headers["X-Request-Id"]
    assert len(made) == 32


def test_an_unexpected_error_says_under_which_id_the_log_has_it(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(text("alter table files rename column filename to renamed"))
    answer = api.client.get("/v1/files", headers={"X-Request-Id": "mine-2"})
    refused(answer, 500, None, "mine-2")
    assert answer.headers["X-Request-Id"] == "mine-2"
    (logged,) = [line for line in api.log if line["log_level"] == "error"]
    assert logged["request_id"] == "mine-2"
    assert "filename" in str(logged["exc_info"])


def test_a_commit_that_fails_is_no_success(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    with transaction(api.engine) as session:
        session.execute(text("create function fail() returns trigger as 'begin raise; end' language plpgsql"))
        session.execute(
            text(
                "create constraint trigger fail after insert on jobs deferrable initially deferred "
                "for each row execute function fail()"
            )
        )
    refused(api.submit(training_file=file), 500, None)
    assert api.count(Job) == 0


def test_a_file_whose_row_cannot_be_written_leaves_no_bytes(api: ApiHouse) -> None:
    with transaction(api.engine) as session:
        session.execute(text("alter table files add constraint none_at_all check (bytes < 0) not valid"))
    refused(api.upload(class_folders("a", "b")), 500, None)
    assert api.stored_bytes() == []


def test_ready_means_migrated_and_a_store_that_can_be_written(api: ApiHouse) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    assert api.client.get("/readyz").json()["status"] == "ready"

    with transaction(api.engine) as session:
        session.execute(text("update alembic_version set version_num = 'older'"))
    refused(api.client.get("/readyz"), 503, None, "older", "alembic upgrade head")


def test_a_database_that_is_away_is_said_so(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": settings.database_url.__class__("postgresql+psycopg://x@127.0.0.1:9/x")}
    )
    with TestClient(create_app(away), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = "Bearer thaw_any"
        for path in ("/readyz", "/v1/files", "/metrics", f"{JOBS}/ftjob-x"):
            answer = client.get(path)
            refused(answer, 503, None, "try again")
            assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/healthz").status_code == 200


def test_metrics_count_requests_by_route_and_jobs_by_state(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"))["id"]
    api.client.get(f"{JOBS}/{job}")
    metrics = api.client.get("/metrics")

    assert metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'thaw_jobs{state="queued"} 1.0' in metrics.text
    route = 'method="GET",route="/v1/fine_tuning/jobs/{job_id}",status="200"'
    assert f"thaw_http_requests_total{{{route}}} 1.0" in metrics.text
    assert job not in metrics.text


def test_the_page_of_routes_asks_no_other_server(api: ApiHouse) -> None:
    page = api.client.get("/docs")

    assert page.headers["Content-Type"].startswith("text/html")
    assert "://" not in page.text
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert len(api.client.get(asset).content) > 1000
    assert api.client.get("/docs/assets/../../pyproject.toml").status_code == 404
