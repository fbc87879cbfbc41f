"""A network's own training steps to the bit: against a loop written by hand, and after a stop at any step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from every_step import stop_everywhere
from safetensors.torch import load_file, save_file
from step_networks import STEP_NETWORKS
from test_reference import batches_of, pictures
from test_resuming_anywhere import one_thread
from trainer_runs import MakeSpec, read_run, start_elastic, start_ranks

from shared.domain.events import TrainerSpec
from worker.training.ranks import Ranks
from worker.training.sampling import mixed_seed

__all__ = ["one_thread", "pictures"]
HERE = Path(__file__).parent
N_EPOCHS = 2
HYPERPARAMETERS = {"n_epochs": N_EPOCHS, "optimizer": "adamw", "weight_decay": 0.01}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["pair", "entangled"])
def test_two_ranks_end_with_the_bits_of_a_loop_written_by_hand(
    make_spec: MakeSpec, pictures: Path, tmp_path: Path, network: str
) -> None:
    """So the gradients' hooks of one step's DDP leave the other step's alone, shared parameters or not."""
    spec = on_two_ranks(make_spec, network, pictures, tmp_path)
    (tmp_path / "job.json").write_text(json.dumps(in_its_words(spec, network, tmp_path)))

    started = [
        start_ranks(spec, tmp_path / "engine"),
        start_elastic([str(HERE / "reference_pair.py"), str(tmp_path / "job.json")], tmp_path / "by-hand", 2),
    ]
    for process in started:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output

    by_hand = [torch.load(tmp_path / "by-hand" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    engine = load_file(tmp_path / "engine" / "model.safetensors")
    assert [name for name in engine if not torch.equal(engine[name], by_hand[0][name])] == []
    assert [name for name in engine if not torch.equal(by_hand[0][name], by_hand[1][name])] == []
    initial = torch.load(tmp_path / "initial.pt", weights_only=True)
    still_there = [name for name in engine if torch.equal(engine[name], initial[name])]
    assert still_there == [name for name in engine if "unused" in name]
    found = read_run(tmp_path / "engine").result.find_unused_parameters.steps
    assert [found[step].value for step in ("discriminator", "generator")] == [network == "entangled", False]


def test_a_run_stopped_at_any_step_goes_on_with_the_same_bits(
    make_spec: MakeSpec, tmp_path: Path, one_thread: None
) -> None:
    """The generator's noise, both optimizers' moments, counts and proofs. Either optimizer's steps count."""
    spec = make_spec(
        "pair",
        task="custom",
        freeze=["discriminator"],
        later={1: "none"},
        validation_fraction=0.76,
        hyperparameters={**HYPERPARAMETERS, "batch_size": 8, "keep": "last"},
    )
    stops = [1, 3, 4, 6, 9]  # Three of the generator alone, then three rounds of both.

    stop_everywhere(spec, tmp_path, Ranks(0, 1, 0, 1, torch.device("cpu")), stops)

    whole = read_run(tmp_path / "whole").result
    assert [(step.name, step.done) for phase in whole.phases for step in phase.steps] == [
        ("generator", 3),
        ("discriminator", 3),
        ("generator", 3),
    ]
    went_on = sorted(tmp_path.glob("from-*"))
    assert {f"from-stopped-{stop}" for stop in stops} < {folder.name for folder in went_on}
    for folder in went_on:
        one, other = (load_file(run / "model.safetensors") for run in (tmp_path / "whole", folder))
        assert [name for name in one if not torch.equal(one[name], other[name])] == [], folder.name
        result = read_run(folder).result
        assert result.phases == whole.phases, folder.name
        assert result.epochs == whole.epochs, folder.name


def on_two_ranks(make_spec: MakeSpec, network: str, pictures: Path, folder: Path) -> TrainerSpec:
    torch.manual_seed(5)
    base = folder / "base.safetensors"
    save_file(STEP_NETWORKS[network]().state_dict(), base)
    return make_spec(
        network,
        task="custom",
        weights={"path": str(base), "format": "safetensors", "sha256": "0" * 64},
        train={"path": str(pictures), "format": "image_folder"},
        # Every pixel is divided by 255, and nothing else.
        preprocessing={"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
        world_size=2,
        hyperparameters=HYPERPARAMETERS,
    )


def in_its_words(spec: TrainerSpec, network: str, folder: Path) -> dict[str, object]:
    """The same job in the words of `reference_pair.py`."""
    torch.save(load_file(folder / "base.safetensors"), folder / "initial.pt")
    return {
        "network": network,
        "initial": str(folder / "initial.pt"),
        "pictures": spec.train.path,
        "batches": [batch for epoch in range(N_EPOCHS) for batch in batches_of(spec, epoch)],
        "seeds": [mixed_seed(spec.seed, rank) for rank in (0, 1)],
        **spec.hyperparameters.model_dump(include={"learning_rate", "weight_decay"}),
    }
