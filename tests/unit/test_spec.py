"""What a person may ask for: limits of single fields, and rules between fields."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.domain.spec import Hyperparameters, JobSpec, PlanSpec, Preprocessing, resolve_hyperparameters

LEAST = {"model": "resnet18", "training_file": "file-a"}


def _refused(**body: Any) -> str:
    with pytest.raises(ValidationError) as refusal:
        JobSpec.model_validate({**LEAST, **body})
    return str(refusal.value)


def test_the_least_that_can_be_asked_has_a_default_for_all_else() -> None:
    spec = JobSpec.model_validate(LEAST)

    assert spec.task == "classification"
    assert spec.freeze.rules == ()
    assert spec.resources.world_size == 1
    assert spec.hyperparameters.n_epochs == "auto"
    assert not spec.has_validation


@pytest.mark.parametrize(
    "body",
    [
        {"modell": "x"},
        {"head": {"classes": 3}},
        {"hyperparameters": {"lr": 1}},
        {"preprocessing": {"size": 8}},
        {"resources": {"gpus": 1}},
    ],
)
def test_unknown_fields_are_refused_at_every_depth(body: dict[str, Any]) -> None:
    assert "Extra inputs are not permitted" in _refused(**body)


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"n_epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"weight_decay": float("inf")},
        {"label_smoothing": 1},
        {"gradient_clip_norm": 0},
        {"momentum": 1, "optimizer": "sgd"},
        {"early_stopping_patience": 0},
    ],
)
def test_absurd_and_non_finite_numbers_are_refused(hyperparameters: dict[str, Any]) -> None:
    assert next(iter(hyperparameters)) in _refused(hyperparameters=hyperparameters)


@pytest.mark.parametrize(
    "hyperparameters",
    [{"n_epochs": True}, {"n_epochs": "3"}, {"learning_rate": True}, {"learning_rate": "0.1"}],
)
def test_what_only_looks_like_a_number_is_refused(hyperparameters: dict[str, Any]) -> None:
    assert "Input should be a valid" in _refused(hyperparameters=hyperparameters)


def test_a_plan_may_leave_out_the_file_that_early_stopping_needs() -> None:
    patient = {"model": "resnet18", "hyperparameters": {"early_stopping_patience": 2}}
    assert PlanSpec.model_validate(patient).training_file is None


def test_a_setting_without_effect_is_refused() -> None:
    assert "momentum is for optimizer 'sgd'" in _refused(hyperparameters={"momentum": 0.9})
    assert "needs a validation_file" in _refused(hyperparameters={"early_stopping_patience": 2})
    assert "not both" in _refused(validation_file="file-b", validation_fraction=0.5)


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    assert "'segmentation', 'reconstruction' or 'custom'" in _refused(task="ranking")
    assert "classification" in _refused(task="poetry")


def test_every_auto_is_decided_for_the_ranks_at_hand() -> None:
    decided = resolve_hyperparameters(Hyperparameters(), world_size=2)

    assert (decided.n_epochs, decided.batch_size, decided.learning_rate) == (3, 64, 0.001)
    sgd = resolve_hyperparameters(Hyperparameters(optimizer="sgd"), world_size=1)
    assert (sgd.learning_rate, sgd.momentum) == (0.01, 0.9)


def test_a_batch_that_the_ranks_do_not_divide_names_one_that_fits() -> None:
    with pytest.raises(ValueError, match="2 ranks do not divide it; 8 would fit"):
        resolve_hyperparameters(Hyperparameters(batch_size=7), world_size=2)


def test_a_batch_takes_no_more_than_the_training_samples() -> None:
    assert resolve_hyperparameters(Hyperparameters(), world_size=2, n_training=7).batch_size == 6
    assert resolve_hyperparameters(Hyperparameters(), world_size=2, n_training=700).batch_size == 64
    with pytest.raises(ValueError, match="more than the 7 training samples; at most 6 would fit"):
        resolve_hyperparameters(Hyperparameters(batch_size=8), world_size=2, n_training=7)
    with pytest.raises(ValueError, match="cannot be shared out over 4 ranks"):
        resolve_hyperparameters(Hyperparameters(), world_size=4, n_training=3)


def test_the_picture_size_is_a_side_or_height_and_width() -> None:
    assert Preprocessing(image_size=32).size((1, 2)) == (32, 32)
    assert Preprocessing(image_size=[24, 40]).size((1, 2)) == (24, 40)
    assert Preprocessing().size((1, 2)) == (1, 2)


def test_a_plan_may_leave_its_files_out() -> None:
    assert PlanSpec.model_validate({"model": "resnet18"}).training_file is None
