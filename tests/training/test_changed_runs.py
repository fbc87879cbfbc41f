"""A job that was changed while it was paused goes on as changed, from its checkpoint, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from every_step import stopping_at_step
from safetensors.torch import load_file
from trainer_runs import MakeSpec, Ran, RunHere, going_on, last_checkpoint

from shared.domain.changes import LEARNING_RATE, N_EPOCHS, HeldFrom, SpecChange
from shared.domain.events import TrainerSpec
from shared.domain.job import StopReason

STEADY = {"lr_schedule": "constant", "batch_size": 20}
STEPS_PER_EPOCH = 5


def change(field: str, old: float, new: float) -> SpecChange:
    return SpecChange(field=field, old=old, new=new, actor="api:key-1", time=1.0)


def changed(spec: TrainerSpec, *changes: SpecChange, **hyperparameters: Any) -> TrainerSpec:
    """The job as its row says from the change on."""
    settings = spec.hyperparameters.model_copy(update=hyperparameters)
    return spec.model_copy(update={"hyperparameters": settings, "changes": [*spec.changes, *changes]})


def stopped_at(spec: TrainerSpec, step: int, run_here: RunHere, out: Path) -> Ran:
    out.mkdir()
    with stopping_at_step(out, step, StopReason.PAUSE):
        ran = run_here(spec, out.name)
    assert ran.of_type("checkpoint")[-1].step == step
    return ran


def going_on_for(steps: int, spec: TrainerSpec, folder: str, run_here: RunHere, out: Path) -> Ran:
    """Goes on from the checkpoint and is stopped again after some steps."""
    out.mkdir()
    with stopping_at_step(out, steps, StopReason.PAUSE):
        return run_here(going_on(spec, folder), out.name)


def same_bits(one: Ran, other: Ran) -> bool:
    first, second = (load_file(ran.out / "model.safetensors") for ran in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_more_epochs_at_a_constant_rate_are_what_a_longer_run_would_have_been(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    short, long = (make_spec(hyperparameters={**STEADY, "n_epochs": n}) for n in (2, 4))
    stopped = stopped_at(short, 7, run_here, tmp_path / "stopped")
    longer = changed(short, change(N_EPOCHS, 2, 4), n_epochs=4)

    resumed = run_here(going_on(longer, last_checkpoint(stopped)), "resumed")

    assert same_bits(resumed, run_here(long, "long"))
    assert len(resumed.result.epochs) == 4
    told = HeldFrom(field=N_EPOCHS, old=2, new=4, step=7)
    assert resumed.result.changes == [told]
    assert resumed.note("changed").data == {"step": 7, "changes": [told.model_dump()]}
    assert resumed.result.spec["changes"][0]["actor"] == "api:key-1"


def test_fewer_epochs_end_it_where_they_end(make_spec: MakeSpec, run_here: RunHere, tmp_path: Path) -> None:
    long, short = (make_spec(hyperparameters={**STEADY, "n_epochs": n}) for n in (4, 2))
    stopped = stopped_at(long, 2 * STEPS_PER_EPOCH, run_here, tmp_path / "stopped")
    shorter = changed(long, change(N_EPOCHS, 4, 2), n_epochs=2)

    resumed = run_here(going_on(shorter, last_checkpoint(stopped)), "resumed")

    assert same_bits(resumed, run_here(short, "short"))


def test_a_rate_holds_from_the_checkpoint_on_and_the_optimizer_keeps_what_it_has(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    spec = make_spec(hyperparameters={**STEADY, "n_epochs": 3, "learning_rate": 0.01})
    stopped = stopped_at(spec, STEPS_PER_EPOCH + 2, run_here, tmp_path / "stopped")
    slower = changed(spec, change(LEARNING_RATE, 0.01, 0.002), learning_rate=0.002)

    resumed = run_here(going_on(slower, last_checkpoint(stopped)), "resumed")

    rates = [epoch["learning_rate"] for epoch in resumed.result.epochs]
    assert rates == [0.01, 0.002, 0.002]
    assert resumed.result.changes == [HeldFrom(field=LEARNING_RATE, old=0.01, new=0.002, step=7)]
    assert not same_bits(resumed, run_here(spec, "unchanged"))
    state = torch.load(Path(last_checkpoint(stopped)) / "state.pt", weights_only=True)
    assert state["phase"]["moments"], "momentum, which the next step went on with"


def test_the_schedule_runs_on_global_steps_over_the_new_total(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    falling = {**STEADY, "lr_schedule": "cosine", "learning_rate": 0.01}
    short, long = (make_spec(hyperparameters={**falling, "n_epochs": n}) for n in (2, 4))
    stopped = stopped_at(short, 7, run_here, tmp_path / "stopped")
    longer = changed(short, change(N_EPOCHS, 2, 4), n_epochs=4)

    resumed = run_here(going_on(longer, last_checkpoint(stopped)), "resumed")

    rates, of_a_long_run = (
        [epoch["learning_rate"] for epoch in ran.result.epochs] for ran in (resumed, run_here(long, "long"))
    )
    assert rates[1:] == of_a_long_run[1:]
    assert rates[0] < of_a_long_run[0], "the first epoch was one of two"


def test_a_difference_that_no_change_explains_is_refused(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    spec = make_spec(hyperparameters={**STEADY, "n_epochs": 3, "learning_rate": 0.01})
    folder = last_checkpoint(stopped_at(spec, 2, run_here, tmp_path / "stopped"))
    other = {"n_epochs": 4, "learning_rate": 0.002}
    wrong = {
        "never told": changed(spec, **other),
        "one told": changed(spec, change(N_EPOCHS, 3, 4), **other),
        "told of another job": changed(
            spec, change(N_EPOCHS, 3, 4), change(LEARNING_RATE, 0.03, 0.002), **other
        ),
    }
    for name, spec_of_another in wrong.items():
        ran = run_here(going_on(spec_of_another, folder), name.replace(" ", "-"))
        assert ran.error["code"] == "checkpoint_mismatch", name
        assert "learning_rate: 0.01 there, 0.002 here" in ran.error["message"]


def test_changes_add_up_over_pauses_and_an_older_checkpoint_still_fits(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    spec = make_spec(hyperparameters={**STEADY, "n_epochs": 2, "learning_rate": 0.01})
    first = last_checkpoint(stopped_at(spec, 3, run_here, tmp_path / "first"))
    once = changed(spec, change(LEARNING_RATE, 0.01, 0.02), learning_rate=0.02)
    second = last_checkpoint(going_on_for(2, once, first, run_here, tmp_path / "second"))
    twice = changed(once, change(LEARNING_RATE, 0.02, 0.03), learning_rate=0.03)

    ran = run_here(going_on(twice, second), "third")
    skipped = run_here(going_on(twice, first), "skipped")

    told = [(held.old, held.new, held.step) for held in ran.result.changes]
    assert told == [(0.01, 0.02, 3), (0.02, 0.03, 5)]
    assert [(held.old, held.new, held.step) for held in skipped.result.changes] == [(0.01, 0.03, 3)]


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_what_was_changed_before_the_first_step_holds_from_the_start(
    make_spec: MakeSpec, run_here: RunHere, n_epochs: int
) -> None:
    spec = make_spec(hyperparameters={**STEADY, "n_epochs": 2})
    ran = run_here(changed(spec, change(N_EPOCHS, 2, n_epochs), n_epochs=n_epochs))
    assert len(ran.result.epochs) == n_epochs
    assert ran.result.changes == [HeldFrom(field=N_EPOCHS, old=2, new=n_epochs, step=0)]
