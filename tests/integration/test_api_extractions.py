"""Feature extractions over HTTP: submitted, resolved, listed, apart from fine-tuning and other teams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused, two_layer_tree
from httpx import Response
from stored_checkpoints import store_checkpoint

from shared.db.engine import transaction
from shared.db.models import Event, Job
from shared.domain.extraction import ResolvedExtraction
from shared.domain.job import JobState
from shared.domain.job_kind import JobKind
from shared.domain.module_outputs import ModuleOutput, Outputs
from shared.domain.resolved import JobWeights
from shared.settings import Settings

EXTRACTIONS = "/v1/feature_extraction/jobs"
SUCCEEDED = (JobState.DISPATCHED, JobState.RUNNING, JobState.SUCCEEDED)
TREE = {"tree": two_layer_tree().to_data(), "head": ["fc"], "image_size": [14, 14]}


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def submit(api: ApiHouse, **body: Any) -> Response:
    least = {"model": "resnet18", "weights": "none", "modules": ["layer4", "avgpool"]}
    return api.client.post(EXTRACTIONS, json={**least, **body})


def extraction(api: ApiHouse, **body: Any) -> dict[str, Any]:
    answer = submit(api, **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_extraction_is_queued_with_every_default_decided(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog", samples=5)
    made = extraction(
        api,
        input_file=file,
        modules=["layer*", "fc"],
        resources={"devices_per_node": 2},
        metadata={"who": "me"},
    )

    assert made["id"].startswith("fxjob-")
    assert (made["object"], made["status"]) == ("feature_extraction.job", "queued")
    assert made["input_file"] == file
    assert made["batch_size"] == 64
    assert made["class_names"] == ["cat", "dog"]
    assert {one["path"]: one["shape"] for one in made["modules"]} == {
        "layer1": [64, 56, 56],
        "layer2": [128, 28, 28],
        "layer3": [256, 14, 14],
        "layer4": [512, 7, 7],
        "fc": [1000],
    }
    floats = 64 * 56 * 56 + 128 * 28 * 28 + 256 * 14 * 14 + 512 * 7 * 7 + 1000
    assert made["estimated_bytes"] == 10 * (4 * floats + 8)
    again = api.client.get(f"{EXTRACTIONS}/{made['id']}").json()
    assert again["queue_position"] == 1
    moves = dict.fromkeys(("timings", "queue_position", "estimated_start"))
    assert again | moves == made | moves
    (listed,) = api.client.get(EXTRACTIONS, params={"metadata[who]": "me"}).json()["data"]
    assert listed["id"] == made["id"]
    assert "attempts" not in listed
    assert api.client.get(EXTRACTIONS, params={"metadata[who]": "you"}).json()["data"] == []
    events = api.client.get(f"{EXTRACTIONS}/{made['id']}/events", params={"order": "asc"}).json()["data"]
    assert [event["data"]["new"] for event in events] == ["validating_files", "queued"]
    assert events[0]["object"] == "feature_extraction.job.event"
    assert events[0]["id"].startswith("fxevent-")
    assert api.client.get(f"{EXTRACTIONS}/{made['id']}/events", params={"after": events[1]["id"]}).json()[
        "data"
    ]


def test_a_mean_over_places_is_known_for_every_size_of_picture(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    asked = {"input_file": file, "preprocessing": {"image_size": [64, 96]}}

    whole = extraction(api, **asked)
    assert [one["shape"] for one in whole["modules"]] == [None, None]
    assert whole["estimated_bytes"] is None
    mean = extraction(api, **asked, pool="mean", output="parquet", dtype="float16")
    assert [one["shape"] for one in mean["modules"]] == [[512], [512]]
    assert mean["estimated_bytes"] == 6 * (2 * 1024 + 8)
    tokens = extraction(api, input_file=file, model="vit_b_16", modules=["encoder.ln"], pool="mean")
    assert tokens["modules"] == [{"path": "encoder.ln", "shape": [768]}]


def test_an_extraction_goes_on_from_a_jobs_model_as_it_was_trained_to_see(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog")
    base = api.job(training_file=file, preprocessing={"image_size": 32, "normalize": "none"})["id"]
    refused(submit(api, model=base, weights=None, input_file=file), 409, "model", "wait_for_model")

    waiting = extraction(api, model=base, weights=None, input_file=file, wait_for_model=True)
    assert waiting["status"] == "validating_files"
    api.move(base, *SUCCEEDED)
    made = extraction(api, model=base, weights=None, input_file=file, modules=["fc"])
    with transaction(api.engine) as session:
        resolved = ResolvedExtraction.model_validate(session.get_one(Job, made["id"]).resolved)
    assert resolved.weights == JobWeights(job_id=base)
    assert resolved.target.num_classes == 2
    assert (resolved.preprocessing.height, resolved.preprocessing.mean) == (32, [0.0, 0.0, 0.0])
    assert made["modules"] == [{"path": "fc", "shape": [2]}]


def test_an_extraction_makes_no_model_to_go_on_from(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    made = extraction(api, input_file=file)["id"]
    api.move(made, *SUCCEEDED)

    refused(api.submit(model=made, weights=None, training_file=file), 422, "model", "makes no model")
    refused(submit(api, model=made, weights=None, input_file=file), 422, "model", "makes no model")


def test_a_registered_model_is_looked_at_as_far_as_its_node_described_it(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    outputs = Outputs(
        (14, 14), {"conv1": ModuleOutput(1, (16, 12, 12), None, (1, 2)), "fc": ModuleOutput(2, None)}
    )
    api.register_model("told", {**TREE, "outputs": outputs.to_data()}, hash="h1")
    api.register_model("untold", TREE, hash="h2")

    told = {"input_file": file, "model": "told", "weights": None}
    assert extraction(api, **told, modules=["conv1"])["modules"][0]["shape"] == [16, 12, 12]
    refused(submit(api, **told, modules=["fc"]), 422, "modules", "'fc'", "2 times")
    untold = extraction(api, **{**told, "model": "untold"}, modules=["conv1", "fc"])
    assert [one["shape"] for one in untold["modules"]] == [None, None]


BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "unknown module": ({"modules": ["layer5"]}, 422, "modules[0]", "layer4"),
    "glob of nothing": ({"modules": ["fc", "conv?.x"]}, 422, "modules[1]", "conv1"),
    "bad glob": ({"modules": ["l**"]}, 422, "modules[0]", "alone between dots"),
    "too many": ({"modules": ["**"]}, 422, "modules", "at most 64"),
    "none": ({"modules": []}, 422, "modules", "at least 1"),
    "called twice": ({"modules": ["layer1.0.relu"]}, 422, "modules", "2 times"),
    "never called": (
        {"model": "googlenet", "modules": ["aux1"]},
        422,
        "modules",
        "never called",
    ),
    "no tensor": (
        {"model": "vit_b_16", "modules": ["encoder.layers.encoder_layer_0.self_attention"]},
        422,
        "modules",
        "tuple",
    ),
    "unknown file": ({"input_file": "file-nope"}, 422, "input_file", "POST /v1/files"),
    "unknown field": ({"training_file": "file-a"}, 422, "training_file", "no such field"),
    "augmented": ({"preprocessing": {"augment": "flip"}}, 422, "preprocessing.augment", "no such field"),
    "output": ({"output": "csv"}, 422, "output", "safetensors"),
    "pool": ({"pool": "max"}, 422, "pool", "mean"),
    "undivided batch": (
        {"batch_size": 7, "resources": {"devices_per_node": 2}},
        422,
        "batch_size",
        "8 would fit",
    ),
    "too many devices": (
        {"resources": {"devices_per_node": 3}},
        422,
        "resources.devices_per_node",
        "2 x cpu",
    ),
    "unknown model": ({"model": "resnet19"}, 422, "model", "resnet18"),
    "NUL": ({"modules": ["fc\0"]}, 422, "modules[0]", "NUL"),
    "too small": (
        {"model": "inception_v3", "preprocessing": {"image_size": 32}},
        422,
        "preprocessing.image_size",
        "75",
    ),
}


def test_a_bad_extraction_is_refused_by_field_and_leaves_nothing(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    api.node(slots=2)
    for name, (body, status, param, word) in BAD.items():
        answer = submit(api, **{"input_file": file, **body})
        assert answer.status_code == status, name
        refused(answer, status, param, word)
    assert api.count(Job) == 0
    assert api.count(Event) == 0


def test_more_than_the_server_allows_is_refused_with_the_estimate(settings: Settings) -> None:
    with api_on(settings.model_copy(update={"max_extraction_bytes": 1_000_000})) as api:
        file = api.data_set("a", "b", samples=10)
        answer = submit(api, input_file=file, modules=["layer1"])
        refused(answer, 413, "modules", f"{20 * (4 * 64 * 56 * 56 + 8):,} bytes", "1,000,000", "pool")
        assert submit(api, input_file=file, modules=["layer1"], pool="mean").status_code == 200


def test_one_queue_holds_both_kinds_and_no_other_list_does(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    trained, extracted = api.job(training_file=file)["id"], extraction(api, input_file=file)["id"]

    assert [job["id"] for job in api.client.get(JOBS).json()["data"]] == [trained]
    assert [job["id"] for job in api.client.get(EXTRACTIONS).json()["data"]] == [extracted]
    queue = api.client.get("/v1/queue").json()["data"]
    assert [(job["id"], job["object"]) for job in queue] == [
        (trained, "fine_tuning.job"),
        (extracted, "feature_extraction.job"),
    ]
    refused(api.client.get(JOBS, params={"after": extracted}), 404, None, extracted)
    refused(api.client.get(EXTRACTIONS, params={"after": trained}), 404, None, trained)


def test_a_file_stays_while_an_extraction_needs_it(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    made = extraction(api, input_file=file)["id"]

    refused(api.client.delete(f"/v1/files/{file}"), 409, None, made)
    assert api.client.post(f"{EXTRACTIONS}/{made}/cancel").json()["status"] == "cancelled"
    refused(api.client.post(f"{EXTRACTIONS}/{made}/cancel"), 409, None, "cancelled")
    assert api.client.delete(f"/v1/files/{file}").status_code == 200


def test_every_route_of_a_job_is_closed_to_other_teams_and_to_other_kinds(api: ApiHouse) -> None:
    """Made from the API's own document, so that no route can be forgotten."""
    file = api.data_set("a", "b")
    jobs = {
        JobKind.FINE_TUNING: api.job(training_file=file)["id"],
        JobKind.FEATURE_EXTRACTION: extraction(api, input_file=file)["id"],
    }
    for kind, job in jobs.items():
        api.add_artifact(job, "result.json", b"{}")
        store_checkpoint(api, job, f"ftckpt-{kind}", 1)
    theirs = api.other_team()
    document = api.client.get("/openapi.json").json()
    routes = [
        (method, _with_names(path), path.split("/")[2])
        for path, methods in document["paths"].items()
        for method in methods
        if "{job_id}" in path
    ]
    assert {kind for _, _, kind in routes} == set(jobs)
    assert len(routes) > 12

    for method, path, kind in routes:
        own, other = jobs[JobKind(kind)], next(job for k, job in jobs.items() if k != kind)
        for headers in ({}, {"Accept": "text/event-stream"}):
            closed = _ask(api, method, path, own, {**theirs, **headers})
            wrong = _ask(api, method, path, other, headers)
            nobodys = f"{JobKind(kind).id_start}-{'0' * 24}"
            missing = _ask(api, method, path, nobodys, headers)
            if path.endswith("/preempt"):
                # For operators alone: whatever the job, others hear only that.
                assert (closed.status_code, wrong.status_code, missing.status_code) == (403, 404, 404)
                assert closed.text == _ask(api, method, path, nobodys, {**theirs, **headers}).text
                continue
            assert [one.status_code for one in (closed, wrong, missing)] == [404] * 3, (method, path)
            assert closed.text == missing.text.replace(nobodys, own)
            assert wrong.text == missing.text.replace(nobodys, other)
    for method, path, kind in routes:
        if method == "get":
            assert _ask(api, method, path, jobs[JobKind(kind)], {}).status_code == 200, path


def _with_names(path: str) -> str:
    """The path with names of what is there."""
    filled = path.replace("/files/{name}", "/files/state.pt").replace("{name}", "result.json")
    return filled.replace("{checkpoint_id}", f"ftckpt-{path.split('/')[2]}")


def _ask(api: ApiHouse, method: str, path: str, job: str, headers: dict[str, str]) -> Response:
    return api.client.request(method, path.replace("{job_id}", job), headers=headers)


def test_a_viewer_starts_no_extraction(api: ApiHouse) -> None:
    body = {"model": "resnet18", "input_file": api.data_set("a", "b"), "modules": ["fc"]}
    answer = api.client.post(EXTRACTIONS, json=body, headers=api.viewer())
    refused(answer, 403, None, "viewer")


def test_a_training_job_says_what_it_will_capture(api: ApiHouse) -> None:
    file = api.data_set("a", "b", samples=10)
    asked = {"training_file": file, "validation_fraction": 0.2}

    job = api.job(**asked, capture=["layer?", "fc"])
    assert job["capture"] == ["layer1", "layer2", "layer3", "layer4", "fc"]
    assert api.job(**asked)["capture"] is None
    refused(api.submit(training_file=file, capture=["fc"]), 422, None, "capture needs a validation_file")
    refused(api.submit(**asked, capture=["layer9"]), 422, "capture[0]", "layer4")
    refused(api.submit(**asked, capture=["layer1.0.relu"]), 422, "capture", "2 times")
    plan = {"model": "resnet18", "capture": ["layer9"]}
    refused(api.client.post("/v1/fine_tuning/plan", json=plan), 422, "capture[0]", "layer4")
