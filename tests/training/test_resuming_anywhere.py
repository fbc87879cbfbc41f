"""Stopped after any step of any phase, a run goes on to the bits of one that never stopped."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from every_step import stop_everywhere
from safetensors.torch import load_file
from trainer_runs import MakeSpec, read_run, start_elastic

from shared.domain.events import TrainerSpec
from worker.training.ranks import Ranks

# Three phases of four epochs: a part thaws, the backbone freezes again. 24 samples, in three steps.
LATER = {1: ["stem", "bn", "layer1"], 3: ["stem", "bn", "layer1", "layer2"]}
N_EPOCHS, STEPS_PER_EPOCH = 4, 3
SECOND_BOUNDARY = 3 * STEPS_PER_EPOCH
FILES = ("model.safetensors", "trainable.safetensors")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small tensors, where threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    gc.unfreeze()


def three_phases(make_spec: MakeSpec, world_size: int = 1) -> TrainerSpec:
    """Draws from every generator, mirrors pictures, evaluates, and keeps the best epoch."""
    return make_spec(
        "drawing",
        freeze=["stem", "bn", "layer1", "layer2", "layer3"],
        later=LATER,
        world_size=world_size,
        validation_fraction=0.76,
        preprocessing={"augment": "flip"},
        hyperparameters={"n_epochs": N_EPOCHS, "batch_size": 9 if world_size == 3 else 8},
    )


def assert_same_end(whole: Path, resumed: Path) -> None:
    """The same weights, history, proofs and decisions; only the time that it took may differ."""
    for name in FILES:
        one, other = load_file(whole / name), load_file(resumed / name)
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
    ran, ran_again = read_run(whole).result, read_run(resumed).result
    others: Any = {"seconds": True, "spec": {"attempt"}}
    assert ran.model_dump(exclude=others) == ran_again.model_dump(exclude=others)
    assert len(ran.phases) == 3


def assert_each_ends_the_same(out: Path, steps: Iterable[int]) -> None:
    whole = out / "whole"
    assert [entry["step"] for entry in read_run(whole).result.epochs] == [3, 6, SECOND_BOUNDARY, 12]
    went_on = {path.name for path in out.glob("from-*")}
    assert went_on >= {f"from-stopped-{step}" for step in steps} | {"from-step-000009", "from-step-000012"}
    for name in went_on:
        assert_same_end(whole, out / name)


def test_one_rank_after_every_step(make_spec: MakeSpec, tmp_path: Path, one_thread: None) -> None:
    steps = range(1, N_EPOCHS * STEPS_PER_EPOCH + 1)

    stop_everywhere(three_phases(make_spec), tmp_path, Ranks(0, 1, 0, 1, torch.device("cpu")), steps)

    assert_each_ends_the_same(tmp_path, steps)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_after_steps_on_both_sides_of_a_phase(
    make_spec: MakeSpec, tmp_path: Path, world_size: int
) -> None:
    """Three ranks add up their gradients in an order that depends on where each lies in a bucket."""
    spec = three_phases(make_spec, world_size)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    steps = [SECOND_BOUNDARY - 1, SECOND_BOUNDARY, SECOND_BOUNDARY + 1]
    program = str(Path(__file__).with_name("every_step.py"))

    started = start_elastic(
        [program, str(tmp_path / "spec.json"), ",".join(map(str, steps))], tmp_path / "out", world_size
    )
    output, _ = started.communicate(timeout=200)

    assert started.returncode == 0, output
    assert_each_ends_the_same(tmp_path / "out", steps)
