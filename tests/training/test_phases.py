"""A schedule: parts thaw and freeze again at epochs, each phase probed, and proved by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainer_runs import MakeSpec, Ran, RunHere, read_run, start_ranks

from worker.training import checkpoint_folder, freezing

BACKBONE = {"rules": [{"freeze": "**"}, {"train": "@head"}]}
THAWED = {"rules": [{"freeze": "**"}, {"train": ["layer3", "@head"]}]}
LAYER3 = {f"layer3.{name}" for name in ("conv1", "bn1", "conv2", "bn2", "down")}
# With so high a rate no epoch is better than the first.
RESTLESS: dict[str, Any] = {"learning_rate": 9.0, "lr_schedule": "constant", "optimizer": "adamw"}
UNUSED = ["unused.weight", "unused.bias"]


@pytest.fixture
def keeping_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is dropped."""
    monkeypatch.setattr(checkpoint_folder, "KEPT", 1000)


def after_epochs(ran: Ran) -> list[Mapping[str, torch.Tensor]]:
    """What could move, as it was at the end of each epoch."""
    return [load_file(ran.out / line.folder / "moving.safetensors") for line in ran.of_type("checkpoint")]


def moved(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """The modules of which a parameter or buffer changed."""
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_parts_thaw_and_freeze_again_and_only_they_move(
    make_spec: MakeSpec, run_here: RunHere, keeping_all: None
) -> None:
    spec = make_spec(
        "residual", freeze=BACKBONE, later={1: THAWED, 2: BACKBONE}, hyperparameters={"n_epochs": 3}
    )

    ran = run_here(spec)

    first, second, third = after_epochs(ran)
    assert moved(first, second) == {"fc", *LAYER3}
    assert moved(second, third) == {"fc"}
    phases = ran.result.phases
    assert [phase.from_epoch for phase in phases] == [0, 1, 2]
    assert [phase.n_trainable for phase in phases] == [170, 170 + 4928, 170]
    assert [phase.frozen_proof.n_parameters for phase in phases] == [24, 17, 24]
    assert [phase.frozen_proof.n_buffers for phase in phases] == [21, 15, 21]
    # What no phase moved is what was frozen in the phase that moved most.
    assert ran.result.frozen_proof == phases[1].frozen_proof
    assert phases[0].frozen_proof.before == phases[0].frozen_proof.after != phases[2].frozen_proof.before
    assert len({phase.ranks.checksum for phase in phases}) == 3
    told = [note.data for note in ran.of_type("note") if note.code == "freeze_phase"]
    assert [(note["from_epoch"], note["n_trainable"]) for note in told] == [(1, 5098), (2, 170)]
    assert [note["before"] for note in told] == [phase.model_dump() for phase in phases[:2]]


def test_the_learning_rate_does_not_start_over_with_a_phase(make_spec: MakeSpec, run_here: RunHere) -> None:
    rates = [
        [epoch["learning_rate"] for epoch in run_here(spec, name).result.epochs]
        for name, spec in {
            "whole": make_spec("residual", hyperparameters={"n_epochs": 3}),
            "parts": make_spec(
                "residual", freeze=BACKBONE, later={1: "none"}, hyperparameters={"n_epochs": 3}
            ),
        }.items()
    ]

    assert rates[0] == rates[1] == sorted(rates[0], reverse=True)


def test_each_phase_is_probed_and_tells_what_takes_no_part(make_spec: MakeSpec, run_here: RunHere) -> None:
    spec = make_spec("sidelined", freeze=["unused"], later={1: "none"}, hyperparameters={"n_epochs": 2})

    ran = run_here(spec)

    first, second = (phase.find_unused_parameters for phase in ran.result.phases)
    assert (first.value, first.unused) == (False, [])
    assert (second.value, second.unused) == (True, UNUSED)
    overall = ran.result.find_unused_parameters
    assert (overall.value, overall.unused) == (True, UNUSED)
    assert overall.reason == f"phase 1: {first.reason}; phase 2: {second.reason}"
    notes = [note.data for note in ran.of_type("note") if note.code == "find_unused_parameters"]
    assert [(note["from_epoch"], note["value"]) for note in notes] == [(0, False), (1, True)]


@pytest.mark.parametrize(
    ("later", "code", "names"),
    [
        ({"rules": [], "find_unused_parameters": False}, "unused_parameters", "unused.weight"),
        (["stem", "bn", "layer1", "layer2", "layer3", "fc"], "nothing_learns", "unused.bias"),
    ],
)
def test_what_a_later_phase_cannot_do_is_refused_before_the_first_step(
    make_spec: MakeSpec, run_here: RunHere, later: Any, code: str, names: str
) -> None:
    freeze = {"rules": [{"freeze": "unused"}], "find_unused_parameters": False}
    spec = make_spec("sidelined", freeze=freeze, later={5: later}, hyperparameters={"n_epochs": 6})

    ran = run_here(spec)

    assert ran.error["code"] == code
    assert "phase 2 of 2 (at_epoch 5)" in ran.error["message"]
    assert names in ran.error["message"]
    assert not ran.of_type("train")


def test_looking_ahead_leaves_no_trace(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phases to come are probed at the start, in training mode and with draws of every kind."""
    spec = make_spec("drawing", freeze=BACKBONE, later={1: "none"}, hyperparameters={"n_epochs": 2})
    looked = run_here(spec, "looked").result
    monkeypatch.setattr("worker.training.phases.Phases.look_ahead", lambda *_: None)

    assert run_here(spec, "blind").result.ranks.checksum == looked.ranks.checksum


@pytest.mark.slow
def test_ranks_that_drift_apart_in_a_later_phase_are_caught_at_its_first_step(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The second phase's gradients are not joined: torch itself says nothing of it."""
    spec = make_spec(
        "residual", freeze=BACKBONE, later={1: "none"}, world_size=2, hyperparameters={"n_epochs": 2}
    )
    out = tmp_path / "out"

    started = start_ranks(spec, out, [str(Path(__file__).with_name("drifting_rank.py"))])
    output, _ = started.communicate(timeout=120)

    assert started.returncode == 1, output
    error = read_run(out).error
    assert error["code"] == "ranks_differ"
    assert "after step 8 the ranks differ in 26 parameters" in error["message"]


def test_a_phase_that_early_stopping_left_out_is_told_of_and_not_begun_on_resume(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    """Without a better loss after the first epoch, the run ends just where its second phase would begin."""
    spec = make_spec(
        "residual",
        freeze=BACKBONE,
        later={2: "none"},
        validation_fraction=0.2,
        hyperparameters={**RESTLESS, "n_epochs": 9, "early_stopping_patience": 1},
    )
    ran = run_here(spec)

    assert (ran.result.stopped_early, len(ran.result.epochs), len(ran.result.phases)) == (True, 2, 1)
    assert "at_epoch 2" in ran.result.decisions["schedule"]
    last = str(ran.out / ran.of_type("checkpoint")[-1].folder)
    resumed = run_here(spec.model_copy(update={"resume_from": last}), "resumed")
    assert resumed.result.model_dump(exclude={"seconds"}) == ran.result.model_dump(exclude={"seconds"})


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_statistic_that_moves_in_any_one_phase_fails_the_run(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """A BatchNorm that one phase freezes is left in training mode there, as other trainers leave it."""
    put_modes = freezing.set_training_modes

    def all_but_one(model: nn.Module, phase: Any) -> None:
        put_modes(model, phase)
        if phase.from_epoch == late:
            model.get_submodule("layer3.bn2").train()

    monkeypatch.setattr("worker.training.stepping.set_training_modes", all_but_one)
    frozen = {0: BACKBONE, 1: ["layer3"], 2: ["layer1", "layer3.bn2"]}
    spec = make_spec("residual", freeze=frozen.pop(0), later=frozen, hyperparameters={"n_epochs": 3})

    ran = run_here(spec)

    assert ran.error["code"] == "frozen_part_moved"
    assert "layer3.bn2.running_mean" in ran.error["message"]
    assert len(ran.of_type("checkpoint")) == late + 1
    assert not (ran.out / "result.json").exists()
