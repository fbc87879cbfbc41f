"""Jobs over HTTP: submitted, resolved, listed, cancelled, and seen by their own team alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused, safetensors_of, two_layer_tree

from shared import catalog
from shared.db.engine import transaction
from shared.db.models import Job
from shared.domain.job import JobState, StopReason
from shared.domain.resolved import JobWeights, PublishedWeights, ResolvedJob, UploadedWeights
from shared.domain.stored_plan import freeze_plan_in
from shared.settings import Settings

RUNNING = (JobState.DISPATCHED, JobState.RUNNING)
SUCCEEDED = (*RUNNING, JobState.SUCCEEDED)
TREE = {"tree": two_layer_tree().to_data(), "head": ["fc"], "image_size": [14, 14]}


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def _resolved(api: ApiHouse, job_id: str) -> ResolvedJob:
    with transaction(api.engine) as session:
        job = session.get_one(Job, job_id)
        freeze_plan_in(job.freeze_plan or {})
        return ResolvedJob.model_validate(job.resolved)


def test_a_submitted_job_is_queued_with_every_default_decided(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog")
    job = api.job(
        training_file=file,
        freeze="backbone",
        hyperparameters={"n_epochs": 2},
        preprocessing={"image_size": [24, 40]},
        metadata={"who": "me"},
        suffix="first",
    )

    assert job["object"] == "fine_tuning.job"
    assert job["status"] == "queued"
    assert job["fine_tuned_model"] is None
    assert job["hyperparameters"]["n_epochs"] == 2
    assert job["hyperparameters"]["batch_size"] == 6, "32, or as many as there are"
    assert job["hyperparameters"]["learning_rate"] == 0.001
    assert (job["preprocessing"]["height"], job["preprocessing"]["width"]) == (24, 40)
    assert job["class_names"] == ["cat", "dog"]
    assert job["head"] == {"modules": ["fc"], "num_classes": 2, "replaced": True}
    assert job["metadata"] == {"who": "me"}
    assert job["user_provided_suffix"] == "first"
    plan = job["freeze_plan"]
    assert plan["object"] == "fine_tuning.plan"
    assert plan["phases"][0]["trainable"] == ["fc.weight", "fc.bias"]
    assert plan["phases"][0]["n_trainable"] == 2 * 512 + 2
    assert api.client.get(f"{JOBS}/{job['id']}").json()["id"] == job["id"]
    resolved = _resolved(api, job["id"])
    assert resolved.base.num_classes == 1000
    assert resolved.target.num_classes == 2
    events = api.client.get(f"{JOBS}/{job['id']}/events", params={"order": "asc"}).json()["data"]
    assert [(event["seq"], event["data"]["new"]) for event in events] == [
        (1, "validating_files"),
        (2, "queued"),
    ]


def test_left_out_weights_are_the_published_ones(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("cat", "dog"), weights=None)

    weights = _resolved(api, job["id"]).weights
    assert isinstance(weights, PublishedWeights)
    assert weights.file_name == "resnet18-f37072fd.pth"
    assert weights.sha256 == "f37072fd"
    assert job["weights"] == "IMAGENET1K_V1"


def test_published_weights_bring_their_picture_size(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog")
    swag = {"model": "vit_b_16", "weights": "IMAGENET1K_SWAG_E2E_V1", "training_file": file}

    job = api.job(**swag)
    assert job["preprocessing"]["height"] == 384
    refused(api.submit(**swag, preprocessing={"image_size": 224}), 422, "preprocessing.image_size", "384x384")


def test_a_head_is_kept_when_it_fits_and_none_was_asked_for(api: ApiHouse) -> None:
    api.register_model("two_layers", TREE)
    ten = api.data_set(*"abcdefghij", samples=1)
    two = api.data_set("a", "b", samples=1)

    def head(**body: Any) -> dict[str, Any]:
        found: dict[str, Any] = api.job(model="two_layers", weights=None, **body)["head"]
        return found

    assert head(training_file=ten) == {"modules": ["fc"], "num_classes": 10, "replaced": False}
    assert head(training_file=two) == {"modules": ["fc"], "num_classes": 2, "replaced": True}
    assert head(training_file=ten, head={"num_classes": 10})["replaced"] is True


def test_a_registered_model_is_resolved_to_its_hash(api: ApiHouse) -> None:
    api.register_model("two_layers", TREE, hash="abc")
    job = api.job(model="two_layers", weights=None, training_file=api.data_set("a", "b"))

    target = _resolved(api, job["id"]).target
    assert (target.source, target.name, target.hash, target.version) == (
        "registered",
        "two_layers",
        "abc",
        "1.0",
    )
    assert job["weights"] == "none"
    assert (job["preprocessing"]["height"], job["preprocessing"]["width"]) == (14, 14)


def test_a_registered_model_has_no_published_weights_and_may_be_broken(api: ApiHouse) -> None:
    api.register_model("two_layers", TREE)
    api.register_model("broken", {"error": "NameError: conv"})
    file = api.data_set("a", "b")

    refused(api.submit(model="two_layers", weights="DEFAULT", training_file=file), 422, "weights", "'none'")
    refused(api.submit(model="broken", weights=None, training_file=file), 422, "model", "NameError: conv")
    refused(api.submit(model="two_layer", training_file=file), 422, "model", "two_layers")


def test_uploaded_weights_must_fit_the_model(api: ApiHouse) -> None:
    api.register_model("two_layers", TREE)
    shapes = {"conv1.weight": [16, 3, 3, 3], "conv1.bias": [16], "fc.weight": [4, 16], "fc.bias": [4]}
    fitting = api.upload(safetensors_of(shapes)).json()["id"]
    other = api.upload(safetensors_of({**shapes, "conv1.weight": [16, 3, 5, 5]})).json()["id"]
    data = api.data_set("a", "b")

    job = api.job(model="two_layers", weights=fitting, training_file=data)
    resolved = _resolved(api, job["id"])
    assert isinstance(resolved.weights, UploadedWeights)
    assert (resolved.base.num_classes, resolved.target.num_classes) == (4, 2)
    refused(api.submit(model="two_layers", weights=other, training_file=data), 422, "weights", "conv1.weight")
    refused(api.submit(weights=data, training_file=data), 422, "weights", "safetensors")
    refused(api.submit(training_file=fitting), 422, "training_file", "data set")


def test_a_job_goes_on_from_another_ones_result(api: ApiHouse) -> None:
    digits = api.data_set(*"0123456789", samples=1)
    parity = api.data_set("even", "odd")
    base = api.job(training_file=digits, preprocessing={"image_size": 32})["id"]

    refused(
        api.submit(model=base, weights=None, training_file=parity), 409, "model", "queued", "wait_for_model"
    )
    api.move(base, *SUCCEEDED)
    assert api.client.get(f"{JOBS}/{base}").json()["fine_tuned_model"] == base
    job = api.job(model=base, weights=None, training_file=parity, freeze="backbone")
    resolved = _resolved(api, job["id"])
    assert resolved.weights == JobWeights(job_id=base)
    assert (resolved.base.num_classes, resolved.target.num_classes) == (10, 2)
    assert resolved.replace_head
    assert resolved.preprocessing.height == 32
    same = api.job(model=base, weights=None, training_file=digits)
    assert same["head"]["replaced"] is False
    letters = api.data_set(*"abcdefghij", samples=1)
    assert api.job(model=base, weights=None, training_file=letters)["head"]["replaced"] is True
    refused(api.submit(model=base, weights="none", training_file=parity), 422, "weights", "leave")
    refused(api.submit(model="ftjob-none", weights=None, training_file=parity), 422, "model", "ftjob-none")


def test_a_job_can_wait_for_the_model_it_goes_on_from(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    base = api.job(training_file=file)["id"]

    waiting = api.job(model=base, weights=None, training_file=file, wait_for_model=True)
    assert waiting["status"] == "validating_files"
    assert base in waiting["wait_reason"]
    refused(api.submit(training_file=file, wait_for_model=True), 422, "wait_for_model")
    api.client.post(f"{JOBS}/{base}/cancel")
    late = api.submit(model=base, weights=None, training_file=file, wait_for_model=True)
    refused(late, 409, "model", "cancelled")


def test_cancel_ends_a_waiting_job_and_asks_a_running_one_to_stop(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    waiting, running = api.job(training_file=file)["id"], api.job(training_file=file)["id"]
    api.move(running, *RUNNING)

    ended = api.client.post(f"{JOBS}/{waiting}/cancel").json()
    assert (ended["status"], ended["phase"]) == ("cancelled", "cancelled")
    assert ended["finished_at"] is not None
    refused(api.client.post(f"{JOBS}/{waiting}/cancel"), 409, None, "cancelled")
    for _ in range(2):
        leaving = api.client.post(f"{JOBS}/{running}/cancel").json()
        assert (leaving["status"], leaving["phase"], leaving["stop_reason"]) == (
            "running",
            "stopping",
            "cancel",
        )
    with transaction(api.engine) as session:
        assert session.get_one(Job, running).n_events == 5
    with transaction(api.engine) as session:
        session.get_one(Job, running).stop_reason = StopReason.DRAIN
    assert api.client.post(f"{JOBS}/{running}/cancel").json()["stop_reason"] == "cancel"


def test_jobs_are_listed_a_page_at_a_time_and_by_metadata(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    ids = [api.job(training_file=file, metadata={"n": str(n)})["id"] for n in range(3)]

    first = api.client.get(JOBS, params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    assert "freeze_plan" not in first["data"][0]
    rest = api.client.get(JOBS, params={"after": ids[1]}).json()
    assert [job["id"] for job in rest["data"]] == [ids[0]]
    assert rest["has_more"] is False
    found = api.client.get(JOBS, params={"metadata[n]": "1"}).json()["data"]
    assert [job["id"] for job in found] == [ids[1]]
    queue = api.client.get("/v1/queue").json()["data"]
    assert [job["id"] for job in queue] == ids


def test_another_teams_things_look_like_missing_ones(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job = api.job(training_file=file)["id"]
    api.move(job, *SUCCEEDED)
    api.add_artifact(job, "model.json", b"{}")
    theirs = api.other_team()

    paths = [f"/v1/files/{file}", f"/v1/files/{file}/content", f"{JOBS}/{job}"]
    kinds = ("events", "checkpoints", "artifacts", "artifacts/model.json", "logs", "metrics")
    paths += [f"{JOBS}/{job}/{kind}" for kind in kinds]
    for path in paths:
        assert api.client.get(path).status_code == 200, path
        _looks_missing(api, "GET", path, theirs, file, job)
    stream = {**theirs, "Accept": "text/event-stream"}
    _looks_missing(api, "GET", f"{JOBS}/{job}/events", stream, file, job)
    _looks_missing(api, "DELETE", f"/v1/files/{file}", theirs, file, job)
    for action in ("cancel", "pause", "resume"):
        _looks_missing(api, "POST", f"{JOBS}/{job}/{action}", theirs, file, job)
    for path in ("/v1/files", JOBS):
        assert api.client.get(path, headers=theirs).json()["data"] == []
        refused(api.client.get(path, params={"after": job}, headers=theirs), 404, None, job)
    body = {"model": "resnet18", "weights": "none", "training_file": file}
    refused(api.client.post(JOBS, json=body, headers=theirs), 422, "training_file", file)
    body = {"model": job, "training_file": file}
    refused(api.client.post("/v1/fine_tuning/plan", json=body, headers=theirs), 422, "training_file", file)
    refused(api.client.post("/v1/fine_tuning/plan", json={"model": job}, headers=theirs), 422, "model", job)


def _looks_missing(
    api: ApiHouse, method: str, path: str, headers: dict[str, str], file: str, job: str
) -> None:
    """The very same answer, but for the id, as for an object that nobody has."""
    nobodys = path.replace(file, "file-" + "0" * 24).replace(job, "ftjob-" + "0" * 24)
    theirs = api.client.request(method, path, headers=headers)
    missing = api.client.request(method, nobodys, headers=headers)
    assert theirs.status_code == 404, path
    expected = missing.text.replace("file-" + "0" * 24, file).replace("ftjob-" + "0" * 24, job)
    assert theirs.text == expected


def test_a_plan_needs_no_file_and_stores_nothing(api: ApiHouse) -> None:
    body = {"model": "resnet18", "freeze": ["name:conv1"]}
    plan = api.client.post("/v1/fine_tuning/plan", json=body).json()

    assert plan["object"] == "fine_tuning.plan"
    assert len(plan["phases"][0]["frozen"]) == 9
    assert plan["head"] == {"modules": ["fc"], "num_classes": 1000, "replaced": False}
    refused(
        api.client.post("/v1/fine_tuning/plan", json={**body, "freeze": ["x9"]}),
        422,
        "freeze.rules[0].freeze[0]",
    )
    assert api.count(Job) == 0


def test_models_are_listed_with_their_layers_and_blocks(api: ApiHouse) -> None:
    api.register_model("two_layers", TREE)

    listed = api.client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [*catalog.names(), "two_layers"]
    one = api.client.get("/v1/models/resnet18").json()
    assert (one["source"], one["head"], one["blocks"][0]) == ("torchvision", ["fc"], "conv1")
    tasks = {model["id"]: model["task"] for model in listed}
    assert (tasks["resnet18"], tasks["fcn_resnet50"]) == ("classification", "segmentation")
    layers = api.client.get("/v1/models/two_layers/layers").json()
    assert [module["path"] for module in layers["modules"]] == ["", "conv1", "fc"]
    assert layers["modules"][1]["parameters"][0] == {"name": "weight", "shape": [16, 3, 3, 3]}
    refused(api.client.get("/v1/models/resnet"), 404, "model", "resnet18")


def test_nodes_are_listed_with_their_slots(api: ApiHouse) -> None:
    api.node("node-0", slots=2, models=[("two_layers", "abc")])

    (node,) = api.client.get("/v1/nodes").json()["data"]
    assert (node["id"], node["state"], node["accelerator"], node["models"]) == (
        "node-0",
        "ready",
        "cpu",
        ["two_layers"],
    )
    assert [slot["state"] for slot in node["slots"]] == ["free", "free"]
