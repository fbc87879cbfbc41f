"""What may be changed of a paused job, and what is checked before it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from shared.domain.changes import (
    LEARNING_RATE,
    N_EPOCHS,
    Changes,
    Reached,
    SpecChange,
    TrainingChanges,
    asked_of,
    check_training,
    differing,
    in_words,
    with_changes,
)
from shared.domain.errors import Invalid
from shared.domain.freeze import parse_freeze
from shared.domain.resolved import ResolvedJob

NETWORK = {"source": "torchvision", "name": "resnet18", "num_classes": 2, "head": ["fc"]}
JOB: dict[str, Any] = {
    "task": "classification",
    "base": NETWORK,
    "target": NETWORK,
    "replace_head": False,
    "weights": {"kind": "none"},
    "class_names": ["a", "b"],
    "freeze": parse_freeze({"rules": [{"freeze": "conv1"}], "schedule": [{"at_epoch": 2, "train": "conv1"}]}),
    "hyperparameters": {
        "n_epochs": 4,
        "batch_size": 10,
        "learning_rate": 0.01,
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "lr_schedule": "cosine",
        "warmup_steps": 30,
        "gradient_clip_norm": None,
        "label_smoothing": 0.0,
        "precision": "fp32",
        "early_stopping_patience": None,
    },
    "preprocessing": {
        "height": 8,
        "width": 8,
        "mean": [0.5],
        "std": [0.5],
        "augment": "none",
        "max_unreadable_fraction": 0.0,
    },
    "validation_fraction": None,
    "max_duration_s": 60,
    "seed": 0,
}


NOTHING = Reached()


def changed(n_epochs: int, reached: Reached = NOTHING, n_training: int = 100) -> None:
    """Check a change of the epochs; a job of 100 samples has 10 steps in each."""
    new = SpecChange(field=N_EPOCHS, old=4, new=n_epochs, actor="a", time=0.0)
    job = ResolvedJob.model_validate(with_changes(JOB, [new]))
    check_training(job, {N_EPOCHS}, reached, n_training=n_training, world_size=1)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"hyperparameters": {"batch_size": 8}}, "hyperparameters.batch_size", "not permitted"),
        ({"seed": 1}, "seed", "not permitted"),
        ({"hyperparameters": {"n_epochs": None}}, "hyperparameters.n_epochs", "leave the field out"),
        ({"hyperparameters": {"n_epochs": "auto"}}, "hyperparameters.n_epochs", "integer"),
        ({"hyperparameters": {"n_epochs": 2.5}}, "hyperparameters.n_epochs", "integer"),
        ({"hyperparameters": {"learning_rate": 0}}, "hyperparameters.learning_rate", "greater than 0"),
        ({"hyperparameters": {"learning_rate": math.nan}}, "hyperparameters.learning_rate", "finite"),
        ({"priority": None}, "priority", "leave the field out"),
        ({"priority": 1001}, "priority", "1000"),
        ({"max_duration_s": 0}, "max_duration_s", "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_changed_is_refused(body: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingChanges.model_validate(body)
    (error,) = refused.value.errors()
    assert ".".join(map(str, error["loc"])) == field
    assert words in error["msg"]


def test_an_extraction_has_no_hyperparameters_to_change() -> None:
    with pytest.raises(ValidationError, match="hyperparameters"):
        Changes.model_validate({"hyperparameters": {"n_epochs": 2}})


def test_only_what_is_named_is_asked_for_and_only_what_differs_is_a_change() -> None:
    body = {"hyperparameters": {"n_epochs": 4, "learning_rate": 0.003}, "max_duration_s": None}
    asked = asked_of(TrainingChanges.model_validate(body))
    assert asked == {N_EPOCHS: 4, LEARNING_RATE: 0.003, "max_duration_s": None}
    found = list(differing(asked, JOB))
    assert found == [(LEARNING_RATE, 0.01, 0.003), ("max_duration_s", 60, None)]
    assert asked_of(TrainingChanges()) == {}


def test_a_change_makes_another_job_and_leaves_the_first_as_it_was() -> None:
    changes = [
        SpecChange(field=LEARNING_RATE, old=0.01, new=0.003, actor="a", time=0.0),
        SpecChange(field="max_duration_s", old=60, new=None, actor="a", time=0.0),
    ]
    after = with_changes(JOB, changes)
    assert (after["hyperparameters"]["learning_rate"], after["max_duration_s"]) == (0.003, None)
    assert (JOB["hyperparameters"]["learning_rate"], JOB["max_duration_s"]) == (0.01, 60)
    assert in_words(changes) == "hyperparameters.learning_rate 0.01 -> 0.003; max_duration_s 60 -> none"


@pytest.mark.parametrize(
    ("reached", "least"),
    [
        (Reached(), 3),
        (Reached(epoch=3, step=30, steps_per_epoch=10), 3),
        (Reached(epoch=3, step=31, steps_per_epoch=10), 4),
        (Reached(epoch=3, step=30), 4),
    ],
)
def test_there_are_no_fewer_epochs_than_were_begun_or_than_the_schedule_needs(
    reached: Reached, least: int
) -> None:
    changed(least, reached)
    with pytest.raises(Invalid) as refused:
        changed(least - 1, reached)
    assert refused.value.param == N_EPOCHS
    assert refused.value.code == ("epochs_done" if reached.epoch else "epoch_past_end")
    words = (
        f"give {least} at least" if reached.epoch else "freeze.schedule[0].at_epoch: the job is over before"
    )
    assert words in refused.value.message


def test_a_warm_up_that_would_never_be_over_is_refused() -> None:
    with pytest.raises(Invalid, match="warmup_steps 30 is more than the 15 steps"):
        changed(3, n_training=50)
