"""The engine against a loop written by hand without it: on two ranks, the same bits after each phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_networks import Residual
from trainer_runs import MakeSpec, Ran, read_run, start_elastic, start_ranks

from shared.domain.events import TrainerSpec
from worker.training.proofs import combined, digest
from worker.training.sampling import TrainingOrder

HERE = Path(__file__).parent
# A part thaws at small rates, then all but a part freezes again.
FREEZE = {
    "rules": [{"freeze": ["stem", "bn", "layer1", "layer2"]}],
    "schedule": [
        {"at_epoch": 1, "train": ["stem", "bn", "layer1"], "lr_scale": 0.1},
        {"at_epoch": 1, "train": "layer2"},
        {"at_epoch": 3, "freeze": ["stem", "bn", "layer2", "layer3"]},
        {"at_epoch": 3, "train": "layer1", "lr_scale": 0.5},
    ],
}
# The same in the words of the other loop: what trains from which epoch, and the scale of its learning rate.
TRAINS = {
    0: {"layer3": 1.0, "fc": 1.0},
    1: {"stem": 0.1, "bn": 0.1, "layer1": 0.1, "layer2": 1.0, "layer3": 1.0, "fc": 1.0},
    3: {"layer1": 0.5, "fc": 1.0},
}
N_EPOCHS = 5


@pytest.fixture(scope="module")
def pictures(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scans at the size of the network, so that nothing resizes them."""
    folder = tmp_path_factory.mktemp("pictures")
    for file in digits.rglob("*.png"):
        target = folder / file.relative_to(digits)
        target.parent.mkdir(exist_ok=True)
        Image.open(file).resize((16, 16), Image.Resampling.NEAREST).save(target)
    return folder


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
def test_every_phase_ends_with_the_bits_of_a_loop_written_by_hand(
    make_spec: MakeSpec, pictures: Path, tmp_path: Path, optimizer: str
) -> None:
    spec = scheduled(make_spec, pictures, tmp_path, optimizer)

    ran, by_hand = run_both(spec, tmp_path)

    assert [epoch for epoch, _ in enumerate(by_hand[0])] == [0, 1, 2, 3, 4]
    checkpoints = [ran.out / line.folder for line in ran.of_type("checkpoint")]
    for epoch, folder in enumerate(checkpoints):
        after = load_file(folder / "moving.safetensors")
        assert differing(after, by_hand[0][epoch]) == []
        assert differing(dict(Residual().named_parameters()), by_hand[0][epoch], by_hand[1][epoch]) == []
    assert differing(load_file(ran.out / "model.safetensors"), by_hand[0][-1]) == []
    # What the engine claims of all ranks' parameters at the end of each phase.
    last_epochs = [0, 2, 4]
    names = [name for name, _ in Residual().named_parameters()]
    assert [phase.ranks.checksum for phase in ran.result.phases] == [
        combined({name: digest(by_hand[0][epoch][name]) for name in names}) for epoch in last_epochs
    ]
    assert not torch.equal(by_hand[0][0]["stem.weight"], by_hand[0][2]["stem.weight"])
    # No reducer of an earlier phase is left when the next one is made.
    for rank in (0, 1):
        assert json.loads((ran.out / f"earlier-rank{rank}.json").read_text()) == [0, 0, 0]


def scheduled(make_spec: MakeSpec, pictures: Path, folder: Path, optimizer: str) -> TrainerSpec:
    torch.manual_seed(5)
    base = folder / "base.safetensors"
    save_file(Residual().state_dict(), base)
    return make_spec(
        "residual",
        freeze=FREEZE,
        weights={"path": str(base), "format": "safetensors", "sha256": "0" * 64},
        train={"path": str(pictures), "format": "image_folder"},
        # Every pixel is divided by 255, and nothing else.
        preprocessing={"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
        world_size=2,
        hyperparameters={"n_epochs": N_EPOCHS, "optimizer": optimizer, "weight_decay": 0.01},
    )


def run_both(spec: TrainerSpec, folder: Path) -> tuple[Ran, list[list[dict[str, torch.Tensor]]]]:
    """What the engine left behind, and the state after each epoch of the other loop, by rank."""
    write_job(spec, folder)
    outs = folder / "engine", folder / "by-hand"
    started = [
        start_ranks(spec, outs[0], [str(HERE / "watched_rank.py")]),
        start_elastic([str(HERE / "reference.py"), str(folder / "job.json")], outs[1], world_size=2),
    ]
    for process in started:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    states = [
        [torch.load(outs[1] / f"rank{rank}-epoch{epoch}.pt", weights_only=True) for epoch in range(N_EPOCHS)]
        for rank in (0, 1)
    ]
    return read_run(outs[0]), states


def write_job(spec: TrainerSpec, folder: Path) -> None:
    """The same job in the words of `reference.py`."""
    torch.save(load_file(folder / "base.safetensors"), folder / "initial.pt")
    settings = spec.hyperparameters.model_dump(
        include={"learning_rate", "momentum", "weight_decay", "optimizer"}
    )
    job = {
        "network": "residual",
        "initial": str(folder / "initial.pt"),
        "pictures": spec.train.path,
        "phases": [{"from_epoch": epoch, "trains": trains} for epoch, trains in TRAINS.items()],
        "batches": [batches_of(spec, epoch) for epoch in range(N_EPOCHS)],
        **settings,
    }
    (folder / "job.json").write_text(json.dumps(job))


def batches_of(spec: TrainerSpec, epoch: int) -> list[list[list[int]]]:
    """For each step of `epoch`, the samples of each rank."""
    n = len(list(Path(spec.train.path).rglob("*.png")))
    order = TrainingOrder(torch.arange(n).numpy(), spec.hyperparameters.batch_size, 2, spec.seed)
    return [list(shares) for shares in zip(*(order.batches(epoch, rank) for rank in (0, 1)), strict=True)]


def differing(names: Any, one: Any, other: Any = None) -> list[str]:
    """Those of `names` that differ: in the mapping itself and `one`, or in `one` and `other`."""
    first, second = (names, one) if other is None else (one, other)
    return [name for name in names if not torch.equal(first[name], second[name])]
