"""Which epoch's model a run saves: the best one, or the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer_runs import MakeSpec, Ran, RunHere

from shared.domain.events import TrainerSpec

# With so high a rate and no schedule the first epochs are not beaten.
RESTLESS: dict[str, Any] = {"learning_rate": 0.3, "lr_schedule": "constant", "optimizer": "adamw"}


@pytest.fixture
def restless(make_spec: MakeSpec) -> MakeSpec:
    """Six epochs, of which the last is not the best."""

    def make(**hyperparameters: Any) -> TrainerSpec:
        return make_spec(
            validation_fraction=0.2, hyperparameters={"n_epochs": 6, **RESTLESS, **hyperparameters}
        )

    return make


def is_the_model_of(ran: Ran, checkpoint: Path) -> bool:
    model, there = load_file(ran.out / "model.safetensors"), load_file(checkpoint / "moving.safetensors")
    return all(torch.equal(model[name], tensor) for name, tensor in there.items())


def test_the_best_epoch_is_kept_where_nothing_is_said(restless: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(restless())

    result = ran.result
    assert result.kept_epoch == result.best_epoch < 5
    assert result.evaluation is not None
    assert result.evaluation.loss == result.epochs[result.best_epoch]["validation_loss"]
    assert "the lowest validation loss" in result.decisions["model"]
    best = [line.folder for line in ran.of_type("checkpoint") if line.is_best][-1]
    assert is_the_model_of(ran, ran.out / best)


def test_the_last_epoch_is_kept_where_that_is_asked_for(restless: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(restless(keep="last"))

    result = ran.result
    assert result.best_epoch < result.kept_epoch == 5
    assert result.evaluation is not None
    assert result.evaluation.loss == result.epochs[5]["validation_loss"]
    assert result.evaluation.accuracy == result.epochs[5]["validation_accuracy"]
    assert f"epoch {result.best_epoch} had the lowest" in result.decisions["model"]
    assert is_the_model_of(ran, ran.out / ran.of_type("checkpoint")[-1].folder)


def test_a_resumed_run_keeps_the_last_epoch_too(restless: MakeSpec, run_here: RunHere) -> None:
    spec = restless(keep="last")
    whole = run_here(spec, "whole")

    for earlier in whole.of_type("checkpoint")[-2:]:
        folder = str(whole.out / earlier.folder)
        resumed = run_here(spec.model_copy(update={"resume_from": folder}), f"from-{earlier.step}")

        assert resumed.result.evaluation == whole.result.evaluation
        assert (resumed.result.best_epoch, resumed.result.kept_epoch) == (whole.result.best_epoch, 5)
        assert is_the_model_of(resumed, whole.out / whole.of_type("checkpoint")[-1].folder)


def test_a_run_that_did_all_its_epochs_did_not_stop_early(restless: MakeSpec, run_here: RunHere) -> None:
    stopped = run_here(restless(early_stopping_patience=2, n_epochs=30), "stopped").result
    assert stopped.stopped_early

    ended = run_here(restless(early_stopping_patience=2, n_epochs=len(stopped.epochs)), "ended").result

    assert len(ended.epochs) == len(stopped.epochs)
    assert not ended.stopped_early


def test_without_validation_data_the_last_epoch_is_kept(make_spec: MakeSpec, run_here: RunHere) -> None:
    result = run_here(make_spec(hyperparameters={"n_epochs": 2})).result

    assert (result.best_epoch, result.kept_epoch) == (1, 1)
    assert result.evaluation is None
    assert "no validation data" in result.decisions["model"]
