"""What a job leaves behind, over HTTP: artifacts whole and in part, its log, its metrics and checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders, refused
from moto.server import ThreadedMotoServer
from sqlalchemy import select

from shared.db.engine import transaction
from shared.db.models import Attempt, Checkpoint, Job, Metric
from shared.settings import Settings

MODEL = bytes(range(256)) * 40


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def _job_with_results(api: ApiHouse, **files: bytes) -> str:
    """A job with one attempt, whose files are in the store."""
    job_id = str(api.job(training_file=api.data_set("a", "b"))["id"])
    for number, (name, content) in enumerate(files.items(), start=1):
        api.add_artifact(job_id, name.replace("_", "."), content, number=number)
    return job_id


def test_artifacts_are_listed_and_fetched_whole_or_in_part(api: ApiHouse) -> None:
    job = _job_with_results(api, model_json=b"{}", model_safetensors=MODEL)
    path = f"{JOBS}/{job}/artifacts"

    listed = api.client.get(path).json()
    assert [(a["name"], a["bytes"]) for a in listed["data"]] == [
        ("model.json", 2),
        ("model.safetensors", len(MODEL)),
    ]
    assert listed["data"][1]["sha256"] == hashlib.sha256(MODEL).hexdigest()
    first = api.client.get(path, params={"limit": 1}).json()
    assert first["has_more"] is True
    assert first["last_id"] == "model.json", "what the next page's `after` is"
    after = api.client.get(path, params={"after": "model.json"}).json()["data"]
    assert [a["name"] for a in after] == ["model.safetensors"]
    whole = api.client.get(f"{path}/model.safetensors")
    assert whole.content == MODEL
    assert whole.headers["Content-Length"] == str(len(MODEL))
    part = api.client.get(f"{path}/model.safetensors", headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, MODEL[100:])
    refused(api.client.get(f"{path}/model.pt"), 404, None, "model.json, model.safetensors")
    refused(api.client.get(f"{path}/../../x"), 404, None)


def test_the_log_can_be_read_on_from_where_one_was(api: ApiHouse) -> None:
    job = _job_with_results(api, logs_txt="epoch 1 \N{CHECK MARK}\n".encode())
    path = f"{JOBS}/{job}/logs"

    whole = api.client.get(path)
    assert whole.text == "epoch 1 \N{CHECK MARK}\n"
    assert whole.headers["X-Next-Offset"] == "12"
    assert whole.headers["X-Attempt"] == "1"
    rest = api.client.get(path, params={"offset": 6})
    assert (rest.text, rest.headers["X-Next-Offset"]) == ("1 \N{CHECK MARK}\n", "12")
    assert api.client.get(path, params={"offset": 12}).text == ""
    without = api.client.get(f"{JOBS}/{_job_with_results(api)}/logs")
    assert (without.status_code, without.text) == (200, "")


def test_metrics_and_checkpoints_are_paged(api: ApiHouse) -> None:
    job = _job_with_results(api, model_json=b"{}")
    with transaction(api.engine) as session:
        attempt = session.scalars(select(Attempt.id).where(Attempt.job_id == job)).one()
        for step in (1, 2, 3):
            kind = "validation" if step == 3 else "train"
            values = {"loss": 1 / step}
            session.add(Metric(job_id=job, attempt_id=attempt, kind=kind, step=step, epoch=0, values=values))
            session.add(
                Checkpoint(
                    id=f"ftckpt-{step}",
                    job_id=job,
                    attempt_id=attempt,
                    epoch=1,
                    step=step,
                    is_best=step == 2,
                    storage_prefix="p",
                    manifest={"metrics": {"loss": 1 / step}},
                )
            )

    def get(noun: str, **params: str | int) -> dict[str, list[dict[str, object]]]:
        answer = api.client.get(f"{JOBS}/{job}/{noun}", params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, list[dict[str, object]]] = answer.json()
        return found

    first = get("metrics", limit=2)
    assert [m["step"] for m in first["data"]] == [1, 2]
    assert first["has_more"]
    assert [m["step"] for m in get("metrics", after=first["last_id"])["data"]] == [3]
    assert [m["step"] for m in get("metrics", kind="validation")["data"]] == [3]
    checkpoints = get("checkpoints", limit=2)
    assert [c["step_number"] for c in checkpoints["data"]] == [3, 2]
    assert checkpoints["data"][1]["is_best"] is True
    assert checkpoints["data"][1]["metrics"] == {"step": 2.0, "loss": 0.5}
    assert [c["step_number"] for c in get("checkpoints", after="ftckpt-2")["data"]] == [1]
    refused(api.client.get(f"{JOBS}/{job}/metrics", params={"after": "x"}), 422, "after", "number")
    refused(api.client.get(f"{JOBS}/{job}/checkpoints", params={"after": "x"}), 404, "after", "'x'")
    refused(api.client.get(f"{JOBS}/{job}/events", params={"after": "x"}), 422, "after", "ftevent-")


def test_on_s3_a_download_is_a_signed_address(settings: Settings, tmp_path: Path) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    names = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    boto3.client("s3", endpoint_url=endpoint, **names).create_bucket(Bucket="thaw")
    s3 = {
        "store_url": "s3://thaw/deep",
        "s3_endpoint": endpoint,
        "s3_public_endpoint": endpoint,
        "s3_access_key_id": "a",
        "s3_secret_access_key": "b",
    }
    try:
        with api_on(Settings.model_validate({**settings.model_dump(), **s3})) as house:
            content = class_folders("a", "b")
            file = house.upload(content).json()["id"]
            answer = house.client.get(f"/v1/files/{file}/content", follow_redirects=False)
            assert answer.status_code == 302
            address = answer.headers["Location"]
            assert address.startswith(endpoint)
            assert "X-Amz-Signature" in address
            assert httpx.get(address).content == content
    finally:
        server.stop()


def test_a_finished_job_shows_its_attempts(api: ApiHouse) -> None:
    job = _job_with_results(api, model_json=b"{}")
    with transaction(api.engine) as session:
        row = session.get_one(Job, job)
        row.result = {"n_frozen": 3, "freeze_plan": {"phases": []}, "spec": {}, "job_id": job}
    shown = api.client.get(f"{JOBS}/{job}").json()

    assert [(attempt["number"], attempt["state"]) for attempt in shown["attempts"]] == [(1, "ended")]
    assert shown["result"] == {"n_frozen": 3}
