"""Tasks beside classification, over HTTP: from an upload to a job with every default decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from api_house import ApiHouse, api_on, parquet_of, refused, two_layer_tree, zip_of

from shared.db.engine import transaction
from shared.db.models import Job
from shared.domain.freeze import PlanPhase
from shared.domain.job import JobState
from shared.domain.resolved import ResolvedJob
from shared.settings import Settings

SUCCEEDED = (JobState.DISPATCHED, JobState.RUNNING, JobState.SUCCEEDED)
OUTLINER = {
    "tree": two_layer_tree(21).to_data(),
    "head": ["fc"],
    "image_size": [32, 32],
    "task": "segmentation",
}
AUTOENCODER = {
    "tree": replace(two_layer_tree(), head=(), num_classes=None).to_data(),
    "head": [],
    "image_size": [16, 16],
    "task": "reconstruction",
}
GAN = {
    **AUTOENCODER,
    "task": "custom",
    "flow": None,
    "flow_error": "its own training steps call its parts in ways of their own",
    "training_steps": [
        {"name": "low", "train": ["conv1"], "loss": "low_loss"},
        {"name": "high", "train": ["fc"], "loss": "high_loss"},
    ],
}
TREE = {"tree": two_layer_tree().to_data(), "head": ["fc"], "image_size": [14, 14]}


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def resolved(api: ApiHouse, job_id: str) -> ResolvedJob:
    with transaction(api.engine) as session:
        return ResolvedJob.model_validate(session.get_one(Job, job_id).resolved)


def stored_phase(api: ApiHouse, job_id: str) -> PlanPhase:
    """The only one of the job's freeze plan."""
    with transaction(api.engine) as session:
        (phase,) = session.get_one(Job, job_id).freeze_plan["phases"]
        return PlanPhase.model_validate(phase)


def labelled(*rows: str) -> bytes:
    """A zip of pictures, a row of labels.csv each."""
    pictures = {row.partition(",")[0]: b"picture" for row in rows}
    return zip_of({"labels.csv": "\n".join(["file,labels", *rows, ""]).encode(), **pictures})


def streets(*class_names: str, n: int = 3) -> bytes:
    """A zip of pictures with masks."""
    pairs = {f"{folder}/{i}.png": b"picture" for folder in ("images", "masks") for i in range(n)}
    return zip_of({"classes.txt": "\n".join(class_names).encode(), **pairs})


def scenes(api: ApiHouse) -> str:
    answer = api.upload(labelled("1.png,cat;dog", "2.png,", "3.png,dog", "4.png,bird"))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_a_multilabel_job_takes_pictures_with_a_list_of_labels(api: ApiHouse) -> None:
    file = api.upload(labelled("1.png,cat;dog", "2.png,", "3.png,dog")).json()
    assert file["format"] == "labelled_images"
    assert file["details"]["samples_per_class"] == {"cat": 1, "dog": 2}
    assert file["details"]["n_without_labels"] == 1
    held_out = api.upload(labelled("9.png,dog")).json()["id"]

    job = api.job(task="multilabel", training_file=file["id"], validation_file=held_out)

    assert (job["task"], job["class_names"]) == ("multilabel", ["cat", "dog"])
    assert job["head"] == {"modules": ["fc"], "num_classes": 2, "replaced": True}
    assert job["hyperparameters"]["batch_size"] == 3
    assert resolved(api, job["id"]).task == "multilabel"


def test_lists_of_labels_in_parquet_are_for_multilabel(api: ApiHouse) -> None:
    rows = {"image": [b"1", b"2", b"3"], "labels": [["b", "a"], [], ["b"]]}
    file = api.upload(parquet_of(rows), "data.parquet").json()

    assert file["details"]["task"] == "multilabel"
    assert file["details"]["samples_per_class"] == {"a": 1, "b": 2}
    assert api.job(task="multilabel", training_file=file["id"])["class_names"] == ["a", "b"]
    in_parts = api.upload(parquet_of(rows, row_group_size=1), "parts.parquet").json()
    assert in_parts["details"] == file["details"]
    twice = api.upload(parquet_of({**rows, "labels": [["a", "a"], [], ["b"]]}), "data.parquet")
    refused(twice, 422, "file", "'labels' row 0", "'a' twice")
    missing = api.upload(parquet_of({**rows, "labels": [["a"], None, ["b"]]}), "data.parquet")
    refused(missing, 422, "file", "row 1", "empty list")


def test_a_data_set_for_another_task_is_refused_with_what_would_be_right(api: ApiHouse) -> None:
    folders, pairs = api.data_set("cat", "dog"), scenes(api)

    refused(api.submit(training_file=pairs), 422, "training_file", "multilabel", "class folders")
    refused(api.submit(task="multilabel", training_file=folders), 422, "training_file", "labels.csv")
    wrong = api.submit(task="multilabel", training_file=pairs, validation_file=folders)
    refused(wrong, 422, "validation_file", "classification")
    refused(api.submit(task="ranking", training_file=folders), 422, "task", "multilabel")


def test_a_labels_file_is_refused_with_its_line_and_nothing_is_kept(api: ApiHouse) -> None:
    refused(
        api.upload(labelled("1.png,cat", "1.png,dog")), 422, "file", "line 3", "'1.png' has a row already"
    )
    refused(api.upload(labelled("../1.png,cat")), 422, "file", "leads out")
    assert api.stored_bytes() == []
    refused(api.submit(task="multilabel", training_file=api.upload(labelled("1.png,")).json()["id"]), 422,
            "training_file", "no labels")  # fmt: skip


def test_a_head_that_learnt_another_task_is_made_anew(api: ApiHouse) -> None:
    api.register_model("two_layers", TREE)
    three = api.data_set("bird", "cat", "dog")
    base = api.job(training_file=three, model="two_layers", weights=None)["id"]
    api.move(base, *SUCCEEDED)

    other = api.job(model=base, weights=None, task="multilabel", training_file=scenes(api))

    assert other["class_names"] == ["bird", "cat", "dog"]
    assert other["head"]["replaced"] is True
    assert api.job(model=base, weights=None, training_file=three)["head"]["replaced"] is False


def test_a_reconstruction_takes_any_pictures_and_has_neither_head_nor_classes(api: ApiHouse) -> None:
    api.register_model("autoencoder", AUTOENCODER)
    ask = {"model": "autoencoder", "weights": None, "task": "reconstruction", "freeze": ["conv1"]}
    folders, pairs = api.data_set("cat", "dog"), scenes(api)
    table = api.upload(parquet_of({"image": [b"1", b"2"], "label": [0, 0]}), "one-class.parquet").json()["id"]

    job = api.job(**ask, training_file=folders, validation_file=pairs)
    assert (job["class_names"], job["head"]["modules"]) == ([], [])
    assert job["hyperparameters"]["batch_size"] == 6
    assert resolved(api, job["id"]).target.head == []
    assert api.job(**ask, training_file=table)["task"] == "reconstruction"
    assert api.job(**ask, training_file=pairs, validation_fraction=0.5)["hyperparameters"]["batch_size"] == 2
    api.move(job["id"], *SUCCEEDED)
    again = api.job(**{**ask, "model": job["id"]}, training_file=pairs)
    assert resolved(api, again["id"]).base.head == []

    refused(api.submit(**ask, training_file=folders, head={"num_classes": 2}), 422, "head", "leave head out")
    smooth = api.submit(**ask, training_file=folders, hyperparameters={"label_smoothing": 0.1})
    refused(smooth, 422, "hyperparameters.label_smoothing", "no labels")
    refused(
        api.submit(**{**ask, "freeze": "backbone"}, training_file=folders),
        422,
        "freeze.rules[1].train[0]",
        "no known head",
    )


def test_a_segmentation_job_takes_pictures_with_masks(api: ApiHouse) -> None:
    api.register_model("outliner", OUTLINER)
    ask = {"model": "outliner", "weights": None, "task": "segmentation", "freeze": ["conv1"]}
    file = api.upload(streets("road", "car")).json()
    assert (file["format"], file["details"]["n_samples"]) == ("masked_images", 3)
    other = api.upload(streets("car", "road")).json()["id"]

    job = api.job(**ask, training_file=file["id"], validation_fraction=0.4)

    assert (job["task"], job["class_names"]) == ("segmentation", ["road", "car"])
    assert job["head"] == {"modules": ["fc"], "num_classes": 2, "replaced": True}
    assert job["hyperparameters"]["batch_size"] == 2
    wrong = api.submit(**ask, training_file=file["id"], validation_file=other)
    refused(wrong, 422, "validation_file", "numbers of its lines", "road, car")
    refused(api.submit(**ask, training_file=scenes(api)), 422, "training_file", "images/, masks/")
    refused(api.submit(training_file=file["id"]), 422, "training_file", "segmentation", "class folders")
    refused(api.upload(streets("road", "road")), 422, "file", "'road' 2 times")
    api.register_model("autoencoder", AUTOENCODER)
    drawn = {"model": "autoencoder", "weights": None, "task": "reconstruction"}
    assert api.job(**drawn, training_file=file["id"])["class_names"] == []


def test_torchvisions_segmentation_networks_are_frozen_by_their_backbones_path(api: ApiHouse) -> None:
    file = api.upload(streets("road", "car")).json()["id"]

    job = api.job(
        model="lraspp_mobilenet_v3_large",
        task="segmentation",
        training_file=file,
        freeze=["backbone"],
        preprocessing={"image_size": 64},
    )

    (phase,) = job["freeze_plan"]["phases"]
    assert all(name.startswith("backbone.") for name in phase["frozen"])
    assert not any(name.startswith("backbone.") for name in phase["trainable"])
    assert sorted(job["head"]["modules"]) == ["classifier.high_classifier", "classifier.low_classifier"]
    forgotten = api.submit(model="lraspp_mobilenet_v3_large", training_file=file)
    refused(forgotten, 422, "training_file", "segmentation")
    wrong = api.submit(model="resnet18", task="segmentation", training_file=file)
    refused(wrong, 422, "task", "resnet18 is made for classification")


def test_a_task_that_the_network_is_not_made_for_is_refused_with_its_own(api: ApiHouse) -> None:
    api.register_model("autoencoder", AUTOENCODER)
    file = api.data_set("cat", "dog")

    forgotten = api.submit(model="autoencoder", weights=None, training_file=file)
    refused(forgotten, 422, "task", "made for reconstruction", '"task": "reconstruction"')
    refused(api.submit(task="reconstruction", training_file=file), 422, "task", "resnet18 is made for class")


def test_torchvisions_segmentation_networks_are_for_segmentation(api: ApiHouse) -> None:
    folders, masks = api.data_set("cat", "dog"), api.upload(streets("road", "car")).json()["id"]
    ask = {"model": "deeplabv3_resnet50", "weights": "DEFAULT", "freeze": "backbone"}

    forgotten = api.submit(**ask, training_file=folders)
    refused(forgotten, 422, "task", "deeplabv3_resnet50 is made for segmentation", '"task": "segmentation"')
    job = api.job(**ask, task="segmentation", training_file=masks)

    assert job["head"] == {
        "modules": ["classifier.4", "aux_classifier.4"],
        "num_classes": 2,
        "replaced": True,
    }
    weights, preprocessing = resolved(api, job["id"]).weights, resolved(api, job["id"]).preprocessing
    assert (weights.kind, weights.file_name) == ("published", "deeplabv3_resnet50_coco-cd0a2569.pth")
    assert (preprocessing.height, preprocessing.width) == (520, 520)
    refused(
        api.submit(model="resnet18", task="segmentation", training_file=masks),
        422,
        "task",
        "resnet18 is made",
    )


def test_a_network_is_trained_by_its_own_steps(api: ApiHouse) -> None:
    api.register_model("gan", GAN)
    folders, held_out = api.data_set("cat", "dog"), api.data_set("dog")
    asked = {"model": "gan", "weights": None, "task": "custom"}

    job = api.job(**asked, training_file=folders, validation_file=held_out)
    without_labels = api.job(**asked, training_file=scenes(api))

    assert (job["task"], job["class_names"], without_labels["class_names"]) == ("custom", ["cat", "dog"], [])
    assert job["head"] == {"modules": [], "num_classes": 0, "replaced": False}
    phase = stored_phase(api, job["id"])
    assert [(step.name, step.loss, step.trainable) for step in phase.steps] == [
        ("low", "low_loss", ("conv1.weight", "conv1.bias")),
        ("high", "high_loss", ("fc.weight", "fc.bias")),
    ]
    plan = api.client.post("/v1/fine_tuning/plan", json=asked).json()
    assert plan["phases"][0]["steps"] == [step.model_dump(mode="json") for step in phase.steps]
    assert "own training steps" in plan["memory"]["reason"]
    api.move(job["id"], *SUCCEEDED)
    going_on = api.job(model=job["id"], weights=None, task="custom", training_file=folders, freeze=["conv1"])
    assert [step.is_left_out for step in stored_phase(api, going_on["id"]).steps] == [True, False]


def test_what_is_no_job_for_a_networks_own_steps(api: ApiHouse) -> None:
    api.register_model("gan", GAN)
    api.register_model("two_layers", TREE)
    folders = api.data_set("cat", "dog")
    asked = {"model": "gan", "weights": None, "task": "custom", "training_file": folders}

    refused(
        api.submit(**{**asked, "task": "classification"}), 422, "task", "made for custom", '"task": "custom"'
    )
    for other in ("two_layers", "resnet18"):
        refused(api.submit(**{**asked, "model": other}), 422, "task", other, "no training steps of its own")
    refused(api.submit(**asked, head={"num_classes": 2}), 422, "head", "own training steps")
    smooth = {"label_smoothing": 0.1}
    refused(
        api.submit(**asked, hyperparameters=smooth),
        422,
        "hyperparameters.label_smoothing",
        "own training steps",
    )
    refused(api.submit(**asked, validation_file=scenes(api)), 422, "validation_file", "other targets")
    refused(api.submit(**asked, freeze=["conv1", "fc"]), 422, "freeze", "nothing")
    refused(api.submit(**asked, freeze=["convv"]), 422, "freeze.rules[0].freeze[0]", "conv1")
