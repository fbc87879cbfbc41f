"""A plan over HTTP: its figures, what is kept of it, and that nothing goes by what another job was told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused, two_layer_tree
from sqlalchemy import update

from api.schemas import Plan
from shared.db.engine import transaction
from shared.db.models import Job, NodeRow
from shared.domain.flow import Flow, FlowStep, Kept
from shared.domain.job import NodeState
from shared.domain.stored_plan import freeze_plan_in
from shared.settings import Settings

PLAN = "/v1/fine_tuning/plan"
GIB = 2**30
FLOW = Flow(
    (14, 14),
    (
        FlowStep(
            "conv1",
            (),
            ("conv1.weight", "conv1.bias"),
            (Kept(0, (), ("conv1.weight",)),),
            output_bytes=9_216,
            working_bytes=9_216,
        ),
        FlowStep(
            "fc",
            (0,),
            ("fc.weight", "fc.bias"),
            (Kept(1, (), ("fc.weight",)),),
            output_bytes=40,
            working_bytes=40,
        ),
    ),
    (2_352, 9_216),
)
KNOWN = {"tree": two_layer_tree().to_data(), "head": ["fc"], "image_size": [14, 14], "flow": FLOW.to_data()}
NET = {"model": "net", "freeze": "backbone", "hyperparameters": {"batch_size": 64}}

MATTERS: list[dict[str, Any]] = [
    {"freeze": "none"},
    {"head": {"num_classes": 3}},
    {"hyperparameters": {"batch_size": 32}},
    {"hyperparameters": {"batch_size": 64, "optimizer": "sgd"}},
    {"hyperparameters": {"batch_size": 64, "precision": "fp32"}},
    {"hyperparameters": {"batch_size": 64, "n_epochs": 50}},
    {"preprocessing": {"image_size": 28}},
    {"preprocessing": {"augment": "flip"}},
    {"resources": {"devices_per_node": 2}},
    {"resources": {"accelerator": "cpu"}},
    {"validation_fraction": 0.2},
    {"model": "net2"},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"freeze": ["conv9"]}, "freeze.rules[0].freeze[0]"),
    ({"freeze": ["**"]}, "freeze"),
    (
        {"hyperparameters": {"batch_size": 3}, "resources": {"devices_per_node": 2}},
        "hyperparameters.batch_size",
    ),
    ({"head": {"module": "conv9"}}, "head.module"),
    ({"model": "nett"}, "model"),
    ({"model": "ftjob-nothing"}, "model"),
    ({"resources": {"accelerator": "H100"}}, "resources.accelerator"),
]


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        house.register_model("net", KNOWN)
        yield house


def planned(api: ApiHouse, **changes: Any) -> dict[str, Any]:
    answer = api.client.post(PLAN, json={**NET, **changes})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_plan_has_the_documented_shape_and_all_figures(api: ApiHouse) -> None:
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=16 * GIB, models=[("net", "h1")])
    answer = planned(api)
    assert Plan.model_validate(answer).model_dump(mode="json") == answer
    assert answer["object"] == "fine_tuning.plan"
    assert answer["head"] == {"modules": ["fc"], "num_classes": 10, "replaced": False}
    (phase,) = answer["memory"]["phases"]
    assert phase["gradients_bytes"] == 4 * 170
    assert phase["activations_bytes"] == 64 * 9_216 // 2
    assert answer["memory"]["total_bytes"] == phase["total_bytes"]
    assert answer["prefix"]["modules"] == ["conv1"]
    assert answer["prefix"]["until"] == "fc"
    assert answer["checkpoint"]["total_bytes"] > 3 * 4 * 170
    assert answer["artifacts"]["model_bytes"] > 4 * (16 * 27 + 16 + 170)
    (fit,) = answer["fits"]
    assert (fit["accelerator"], fit["nodes"], fit["fits"]) == ("NVIDIA T4", 1, True)
    assert fit["needed_bytes"] == answer["memory"]["total_bytes"]
    assert answer["warnings"] == []


def test_a_job_keeps_the_plan_that_was_answered_before_it(api: ApiHouse) -> None:
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=16 * GIB, models=[("net", "h1")])
    body = {**NET, "training_file": api.data_set("cat", "dog", samples=40)}
    answer = api.client.post(PLAN, json=body).json()
    job = api.client.post(JOBS, json=body).json()
    assert job["freeze_plan"] == answer
    api.node("later", accelerator="NVIDIA H100", memory_bytes=80 * GIB)
    assert api.client.get(f"{JOBS}/{job['id']}").json()["freeze_plan"] == answer
    with transaction(api.engine) as session:
        stored = session.get_one(Job, job["id"]).freeze_plan
        assert stored is not None
        assert [phase.trainable for phase in freeze_plan_in(stored).phases] == [("fc.weight", "fc.bias")]


def test_a_job_of_a_version_without_figures_is_shown_without_them(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("cat", "dog"))
    with transaction(api.engine) as session:
        row = session.get_one(Job, job["id"])
        row.freeze_plan = {name: row.freeze_plan[name] for name in ("phases", "aliases")}
    shown = api.client.get(f"{JOBS}/{job['id']}").json()["freeze_plan"]
    assert shown["phases"] == job["freeze_plan"]["phases"]
    assert (shown["memory"], shown["fits"], shown["warnings"]) == (None, [], [])


def test_the_same_job_planned_again_gets_the_same_answer_with_the_nodes_of_now(api: ApiHouse) -> None:
    first = planned(api)
    assert first["fits"] == []
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=16 * GIB, models=[("net", "h1")])
    again = planned(api)
    assert [fit["accelerator"] for fit in again["fits"]] == ["NVIDIA T4"]
    assert {**again, "fits": []} == first
    with transaction(api.engine) as session:
        session.execute(update(NodeRow).values(state=NodeState.LOST))
    assert planned(api)["fits"] == []


def test_what_matters_is_not_taken_from_another_plan(api: ApiHouse) -> None:
    api.register_model("net2", KNOWN, hash="h2")
    before = planned(api)
    answers = [planned(api, **change) for change in MATTERS]
    assert len({json.dumps(answer) for answer in [before, *answers]}) == 1 + len(MATTERS)
    assert [planned(api), *(planned(api, **change) for change in MATTERS)] == [before, *answers]


def test_another_version_of_a_registered_model_is_planned_anew(api: ApiHouse) -> None:
    before = planned(api)
    wider = two_layer_tree(num_classes=20).to_data()
    api.register_model("net", {**KNOWN, "tree": wider}, hash="h9")
    assert planned(api)["artifacts"]["model_bytes"] > before["artifacts"]["model_bytes"]


def test_a_job_that_fits_no_node_is_planned_with_a_warning_and_refused(api: ApiHouse) -> None:
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=GIB // 2, models=[("net", "h1")])
    body = {"hyperparameters": {"batch_size": 8_192}, "validation_fraction": 0.5}
    (warning,) = planned(api, **body)["warnings"]
    assert "fits no node" in warning
    assert "batch_size" in warning
    data = api.data_set("cat", "dog", samples=2_000)
    small = {**NET, "hyperparameters": {"batch_size": 3_000}, "training_file": data}
    told = refused(api.client.post(JOBS, json=small), 422, "hyperparameters.batch_size")["message"]
    (largest,) = re.findall(r"batch_size (\d+) would fit", told)
    fitting = {**small, "hyperparameters": {"batch_size": int(largest)}}
    assert api.client.post(JOBS, json=fitting).json()["status"] == "queued"
    too_many = {**small, "hyperparameters": {"batch_size": int(largest) + 1}}
    refused(api.client.post(JOBS, json=too_many), 422, "hyperparameters.batch_size")


def test_a_person_who_knows_better_than_the_estimate_says_so(api: ApiHouse) -> None:
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=GIB // 2, models=[("net", "h1")])
    data = api.data_set("cat", "dog", samples=2_000)
    body = {**NET, "hyperparameters": {"batch_size": 3_000}, "training_file": data}
    job = api.client.post(JOBS, json={**body, "resources": {"min_memory_bytes": GIB // 4}}).json()
    assert job["status"] == "queued"
    assert job["resources"]["min_memory_bytes"] == GIB // 4
    (kept,) = job["freeze_plan"]["warnings"]
    assert "NVIDIA T4, 0.5 GiB" in kept
    events = api.client.get(f"{JOBS}/{job['id']}/events").json()["data"]
    assert [(event["level"], event["message"]) for event in events if event["type"] == "note"] == [
        ("warn", kept)
    ]
    more = {**body, "resources": {"min_memory_bytes": GIB}}
    told = refused(api.client.post(JOBS, json=more), 422, "resources.min_memory_bytes")["message"]
    assert "has 1.0 GiB on each device; the nodes have: 2 x NVIDIA T4 with 0.5 GiB each" in told
    on_cpu = {**body, "resources": {"accelerator": "cpu", "min_memory_bytes": 0}}
    refused(api.client.post(JOBS, json=on_cpu), 422, "resources")


def test_a_job_keeps_what_it_takes_of_a_gpu_for_its_placement(api: ApiHouse) -> None:
    data = api.data_set("cat", "dog", samples=40)
    estimated = api.client.post(JOBS, json={**NET, "training_file": data}).json()
    asked = {**NET, "training_file": data, "resources": {"min_memory_bytes": 7}}
    told = api.client.post(JOBS, json=asked).json()
    with transaction(api.engine) as session:
        kept = [session.get_one(Job, job["id"]).memory_bytes for job in (estimated, told)]
    assert kept == [estimated["freeze_plan"]["memory"]["total_bytes"], 7]


def test_nodes_that_cannot_run_it_say_why(api: ApiHouse) -> None:
    api.node("a", accelerator="NVIDIA T4", memory_bytes=16 * GIB, models=[("net", "h1")])
    api.node("b", accelerator="NVIDIA H100", memory_bytes=80 * GIB, models=[])
    api.node("c", accelerator="cpu", slots=1, models=[("net", "h1")])
    fits = {fit["accelerator"]: fit for fit in planned(api, resources={"accelerator": "cuda"})["fits"]}
    assert fits["NVIDIA T4"]["fits"] is True
    assert (fits["NVIDIA H100"]["fits"], fits["cpu"]["fits"]) == (False, False)
    assert "'net' is not installed" in fits["NVIDIA H100"]["reason"]
    assert "accelerator 'cuda'" in fits["cpu"]["reason"]
    two = planned(api, resources={"devices_per_node": 2})["fits"]
    assert {fit["accelerator"]: fit["fits"] for fit in two}["cpu"] is False


def test_memory_that_nobody_knows_is_null_with_a_reason(api: ApiHouse) -> None:
    known = {name: KNOWN[name] for name in ("tree", "head", "image_size")}
    api.register_model(
        "older", {**known, "flow": None, "flow_error": "RuntimeError: no such size"}, hash="h3"
    )
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=16 * GIB, models=[("older", "h3")])
    answer = planned(api, model="older")
    assert answer["memory"]["total_bytes"] is None
    assert answer["memory"]["phases"][0]["activations_bytes"] is None
    assert "RuntimeError: no such size" in answer["memory"]["reason"]
    assert answer["prefix"] is None
    assert [(fit["fits"], fit["needed_bytes"]) for fit in answer["fits"]] == [(None, None)]


def test_bad_input_is_refused_as_in_a_job(api: ApiHouse) -> None:
    api.node("gpu", accelerator="NVIDIA T4", memory_bytes=16 * GIB, models=[("net", "h1")])
    planned(api)
    file = api.data_set("cat", "dog", samples=40)
    for change, param in REFUSED:
        in_plan = refused(api.client.post(PLAN, json={**NET, **change}), 422, param)
        body = {**NET, "training_file": file, **change}
        assert refused(api.client.post(JOBS, json=body), 422, param) == in_plan


def test_memory_of_torchvisions_networks_is_known_at_any_picture_size(api: ApiHouse) -> None:
    ask = {"model": "resnet18", "weights": "none", "hyperparameters": {"batch_size": 1, "precision": "fp32"}}
    answer = planned(api, **ask, freeze="none", preprocessing={"image_size": 64})
    # What one training step of the real network keeps: 22,179,840 bytes at 224x224, where the result of the
    # last pooling, which the head reads, is as large as at any size.
    (phase,) = answer["memory"]["phases"]
    assert phase["activations_bytes"] == (22_179_840 - 2_048) * 64**2 // 224**2 + 2_048
    assert planned(api, **ask, preprocessing={"image_size": 64})["prefix"]["until"] == "fc"
