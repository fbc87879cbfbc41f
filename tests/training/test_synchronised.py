"""Batch normalisation over all ranks: as one rank with the whole batch has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from small_networks import Residual
from torch import Tensor, nn
from trainer_runs import MakeSpec, RunHere, new_spec, run_several

from worker.training.synchronised import SyncBatchNormOnCpu, layers_that_train, synchronise

CPU = torch.device("cpu")


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(5), (6, 5)),
        (nn.BatchNorm1d(5, affine=False), (6, 5, 7)),
        (nn.BatchNorm2d(5, momentum=None), (6, 5, 3, 4)),
        (nn.BatchNorm2d(5, track_running_stats=False), (6, 5, 3, 4)),
        (nn.BatchNorm3d(5, momentum=0.3, eps=1e-2), (2, 5, 3, 4, 2)),
    ],
)
def test_on_one_rank_it_is_torchs_own_layer(layer: Any, shape: tuple[int, ...], group_of_one: None) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(layer)
    synchronised = nn.Sequential(type(layer)(**arguments(layer)))
    synchronise(synchronised, [], CPU)
    assert type(synchronised[0]) is SyncBatchNormOnCpu

    for _ in range(3):
        inputs = 3 * torch.randn(shape) + 2
        ours, theirs = (trained(network, inputs) for network in (synchronised, model))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert synchronised.state_dict().keys() == model.state_dict().keys()
    for name, value in synchronised.eval().state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(synchronised(inputs), model.eval()(inputs), rtol=1e-4, atol=1e-5)


def arguments(layer: Any) -> dict[str, Any]:
    names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    return {name: getattr(layer, name) for name in names}


def trained(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    """What a forward and backward give: the output, and all gradients."""
    of_inputs = inputs.clone().requires_grad_()
    output = network(of_inputs)
    gradients = torch.autograd.grad(output.pow(3).mean(), [of_inputs, *network.parameters()])
    return [output, *gradients]


def test_layers_are_synchronised_while_they_train_and_stay_the_same_objects() -> None:
    model = Residual()
    layers = dict(model.named_modules())
    names = list(model.state_dict())
    still = ["bn", "layer1", "layer1.bn1", "layer1.bn2"]

    synchronise(model, still, CPU)
    changed = {path for path, layer in layers.items() if type(layer) is SyncBatchNormOnCpu}
    synchronise(model, ["layer2.bn1"], CPU)
    then = {path for path, layer in layers.items() if type(layer) is nn.BatchNorm2d}

    assert changed == {f"layer{n}.bn{m}" for n in (2, 3) for m in (1, 2)}
    assert then == {"layer2.bn1"}
    assert layers_that_train(model, still) == sorted(changed)
    assert dict(model.named_modules()) == layers
    assert list(model.state_dict()) == names


@pytest.fixture(scope="module")
def on_two_ranks(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    specs = {
        name: new_spec(
            "residual",
            digits,
            freeze=["layer1"],
            later={1: "none"},
            world_size=2,
            hyperparameters={"n_epochs": 2, "sync_batch_norm": name == "synchronised"},
        )
        for name in ("synchronised", "apart")
    }
    return run_several(specs, tmp_path_factory.mktemp("ranks") / "out")


def test_two_ranks_learn_what_one_learns_from_whole_batches(
    on_two_ranks: dict[str, Any], make_spec: MakeSpec, run_here: RunHere
) -> None:
    spec = make_spec("residual", freeze=["layer1"], later={1: "none"}, hyperparameters={"n_epochs": 2})
    alone = load_file(run_here(spec).out / "model.safetensors")
    furthest = {
        name: max(
            float((load_file(ran.out / "model.safetensors")[tensor] - value).abs().max() / value.abs().max())
            for tensor, value in alone.items()
        )
        for name, ran in on_two_ranks.items()
    }

    assert furthest["synchronised"] < 1e-3
    assert furthest["apart"] > 0.1


def test_the_saved_model_and_the_account_are_those_of_any_other(on_two_ranks: dict[str, Any]) -> None:
    ran = on_two_ranks["synchronised"]

    Residual().load_state_dict(load_file(ran.out / "model.safetensors"), strict=True)
    assert ran.result.decisions["sync_batch_norm"].startswith("by phase 5, 7 BatchNorm layers")
    assert ran.result.frozen_proof.unchanged
    assert ran.result.freeze_plan == on_two_ranks["apart"].result.freeze_plan


def test_one_rank_has_nothing_to_synchronise_and_says_so(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec("residual", hyperparameters={"sync_batch_norm": True}))

    assert "one rank sees the whole batch" in ran.result.decisions["sync_batch_norm"]


def test_it_is_refused_where_no_layer_trains(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec("custom_network", hyperparameters={"sync_batch_norm": True}))

    assert ran.error["code"] == "no_effect"
    assert not ran.of_type("train")
