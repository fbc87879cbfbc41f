"""Jobs that cannot run are refused over HTTP: by field, in words, with nothing left of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused

from shared import catalog
from shared.db.models import Event, Job
from shared.settings import Settings


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown model": ({"model": "resnet19"}, "model", "resnet18"),
    "unknown file": ({"training_file": "file-nope"}, "training_file", "POST /v1/files"),
    "NUL in an id": ({"training_file": "file-\0"}, "training_file", "NUL"),
    "NUL deep inside": ({"metadata": {"a": "\0"}}, "metadata.a", "NUL"),
    "unknown weights": ({"weights": "IMAGENET"}, "weights", "IMAGENET1K_V1"),
    "unknown field": ({"lr": 0.1}, "lr", "no such field"),
    "unknown field, near": ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs", "n_epochs"),
    "unknown freeze field": ({"freeze": {"rule": []}}, "freeze.rule", "rule"),
    "wrong head": ({"head": {"num_classes": 5}}, "head.num_classes", "give 2"),
    "head that is no layer": ({"head": {"module": "layer4"}}, "head.module", "Linear"),
    "pattern": ({"freeze": ["conv9"]}, "freeze.rules[0].freeze[0]", "conv1"),
    "nothing trains": ({"freeze": ["**"]}, "freeze", "@head"),
    "expression": ({"freeze": ["re:(conv"]}, "freeze.rules[0].freeze[0]", "missing )"),
    "scale on a frozen part": (
        {"freeze": {"rules": [{"freeze": "conv1", "lr_scale": 0.1}]}},
        "freeze.rules[0].lr_scale",
        "goes with 'train'",
    ),
    "decay without effect": ({"freeze": {"layer_decay": 1.0}}, "freeze.layer_decay", "change nothing"),
    "nothing to run again": (
        {"hyperparameters": {"gradient_checkpointing": True}, "freeze": "backbone"},
        "hyperparameters.gradient_checkpointing",
        "only the head trains",
    ),
    "thaws too late": (
        {
            "hyperparameters": {"n_epochs": 3},
            "freeze": {"rules": [{"freeze": "layer4"}], "schedule": [{"at_epoch": 3, "train": "layer4"}]},
        },
        "freeze.schedule[0].at_epoch",
        "n_epochs is 3",
    ),
    "negative": (
        {"hyperparameters": {"learning_rate": -1}},
        "hyperparameters.learning_rate",
        "greater than 0",
    ),
    "absurd": ({"hyperparameters": {"n_epochs": 10**9}}, "hyperparameters.n_epochs", "10000"),
    "no number": ({"hyperparameters": {"batch_size": "big"}}, "hyperparameters.batch_size", "'auto'"),
    "undivided batch": (
        {"hyperparameters": {"batch_size": 5}, "resources": {"devices_per_node": 2}},
        "hyperparameters.batch_size",
        "4 would fit",
    ),
    "more than there are": (
        {"hyperparameters": {"batch_size": 6}, "validation_fraction": 0.4},
        "hyperparameters.batch_size",
        "4 training samples",
    ),
    "longer warm-up than the job": (
        {"hyperparameters": {"warmup_steps": 7, "n_epochs": 2, "batch_size": 2}},
        "hyperparameters.warmup_steps",
        "the 6 steps of this job (2 epochs of 3)",
    ),
    "true for a number": (
        {"hyperparameters": {"learning_rate": True}},
        "hyperparameters.learning_rate",
        "number",
    ),
    "long key": ({"metadata": {"k" * 65: "x"}}, "metadata." + "k" * 65, "64"),
    "too small for its weights": (
        {"model": "swin_t", "weights": "DEFAULT", "preprocessing": {"image_size": 64}},
        "preprocessing.image_size",
        "224x224",
    ),
    "two validations": (
        {"validation_file": "file-x", "validation_fraction": 0.5},
        "",
        "not both",
    ),
    "no share left": ({"validation_fraction": 0.01}, "validation_fraction", "6 samples"),
    "too many devices": (
        {"resources": {"devices_per_node": 3}, "hyperparameters": {"batch_size": 3}},
        "resources.devices_per_node",
        "2 x cpu",
    ),
    "no such device": ({"resources": {"accelerator": "H100"}}, "resources.accelerator", "2 x cpu"),
    "several nodes": ({"resources": {"nodes": 2}}, "resources.nodes", "at most 1"),
    "odd size": (
        {"model": "vit_b_16", "preprocessing": {"image_size": 30}},
        "preprocessing.image_size",
        "multiple of 16",
    ),
    "too small": (
        {"model": "inception_v3", "preprocessing": {"image_size": 32}},
        "preprocessing.image_size",
        "75x75",
    ),
    "task": ({"task": "ranking"}, "task", "multilabel"),
}


def test_a_bad_job_is_refused_by_field_and_leaves_nothing(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog")
    api.node(slots=2)
    for body, param, word in BAD.values():
        refused(api.submit(**{"training_file": file, **body}), 422, param or None, word)
    for literal in ("NaN", "Infinity", "1e400"):
        text = '{"model": "resnet18", "training_file": "file-a", "hyperparameters": {"weight_decay": DECAY}}'
        text = text.replace("DECAY", literal)
        answer = api.client.post(JOBS, content=text, headers={"Content-Type": "application/json"})
        refused(answer, 422, "hyperparameters.weight_decay", "finite")
    assert api.count(Job) == 0
    assert api.count(Event) == 0


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ('{"\\ud800": 1}', 422, "unicode"),
        ('{"model": "\\ud800"}', 422, "unicode"),
        ('{"freeze": ["\\ud800"]}', 422, "unicode"),
        ('{"head": {"\\ud800": 1}}', 422, "unicode"),
        ('{"model": ' + "[" * 900 + "]" * 900 + "}", 422, "must be a valid string"),
        ('{"model": ' + "[" * 100_000 + "]" * 100_000 + "}", 400, "cannot be read"),
        ("{" + ", ".join(f'"k{i}": 0' for i in range(50_000)) + "}", 422, "and 49982 more"),
    ],
)
def test_a_body_made_to_trip_the_server_is_answered_in_a_line(
    api: ApiHouse, text: str, status: int, words: str
) -> None:
    answer = api.client.post(JOBS, content=text, headers={"Content-Type": "application/json"})

    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert len(answer.content) < 10_000


def test_only_the_chosen_weights_say_how_small_pictures_may_be(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog")

    for model in ("vit_b_16", "vit_h_14", "maxvit_t", "swin_v2_t"):
        for weights in ("none", "DEFAULT"):
            known = catalog.get(model).image_size
            preprocessing = api.job(model=model, weights=weights, training_file=file)["preprocessing"]
            assert (preprocessing["height"], preprocessing["width"]) == known
    small = api.job(model="vit_b_16", training_file=file, preprocessing={"image_size": 32})
    assert small["preprocessing"]["height"] == 32


def test_data_sets_must_have_the_classes_that_training_needs(api: ApiHouse) -> None:
    pets, one = api.data_set("cat", "dog"), api.data_set("cat")
    wild = api.data_set("cat", "wolf")

    refused(api.submit(training_file=one), 422, "training_file", "one class only", "'cat'")
    refused(api.submit(training_file=pets, validation_file=wild), 422, "validation_file", "wolf", "cat, dog")
    assert api.job(training_file=pets, validation_file=one)["validation_file"] == one


def test_pictures_that_are_trained_on_do_not_validate(api: ApiHouse) -> None:
    pets, again, held_out = (api.data_set("cat", "dog", samples=count) for count in (3, 3, 2))

    for same, words in ((pets, f"{pets} is the training file"), (again, f"same bytes as {pets}")):
        answer = api.submit(training_file=pets, validation_file=same)
        refused(answer, 422, "validation_file", words, "validation_fraction")
    assert api.job(training_file=pets, validation_file=held_out)["validation_file"] == held_out
