"""Every network of torchvision, built as small as it trains, and one training step of the engine's on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from plain_meanings import NUM_CLASSES, SPECS, Meaning, meaning
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shared import catalog
from shared.domain.freeze import PlanPhase, parse_freeze, resolve
from shared.domain.spec import ResolvedHyperparameters
from worker.training.precision import Precision
from worker.training.ranks import Ranks
from worker.training.stepping import Stepper, TaskLoss
from worker.training.tasks.classification import Classification
from worker.training.torchvision_compat import import_torchvision

BATCH = 2
SIDES = range(32, 512, 32)
ALONE = Ranks(rank=0, world_size=1, local_rank=0, local_world_size=1, device=torch.device("cpu"))
# With momentum and weight decay a frozen parameter in the optimizer would move even without a gradient.
SETTINGS = ResolvedHyperparameters(
    n_epochs=1,
    batch_size=BATCH,
    learning_rate=0.01,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=0.01,
    lr_schedule="constant",
    warmup_steps=0,
    gradient_clip_norm=1.0,
    label_smoothing=0.0,
    precision="fp32",
    early_stopping_patience=None,
    keep="last",
)


@dataclass(frozen=True)
class Stepped:
    """What one step did to a network under one spec, in tensors.

    `frozen` counts the frozen parameters, `still_buffers` the buffers of still modules. Of the trainable
    parameters some got no gradient at all, and some one that is zero everywhere; `stuck` counts those that
    did not move though they had another. `buffers_moved` are those of modules that train. `wrong` names
    every tensor that did what it should not.
    """

    model: str
    n_parameters: int
    side: int
    spec: str
    frozen: int
    still_buffers: int
    frozen_moved: int
    trainable: int
    trainable_moved: int
    no_gradient: int
    zero_gradient: int
    stuck: int
    buffers_moved: int
    wrong: list[str]


def classifiers() -> list[str]:
    """The names of the networks that `every_step` knows how to train."""
    return [name for name in catalog.names() if catalog.get(name).task == "classification"]


def n_parameters(name: str) -> int:
    return sum(catalog.get(name).tree.n_elements.values())


def every_step(name: str) -> Iterator[Stepped]:
    """One step under each spec that means something on the network, on pictures as small as it takes."""
    side = smallest_side(name)
    torch.manual_seed(0)
    model = build(name, side)
    tree = catalog.get(name).tree_at((side, side)).with_num_classes(NUM_CLASSES)
    for spec in SPECS:
        frozen = spec.frozen(name, model)
        if frozen:
            (phase,) = resolve(parse_freeze(spec.freeze), tree).phases
            moved = one_step(model, phase, meaning(model, frozen), side)
            yield Stepped(model=name, n_parameters=n_parameters(name), side=side, spec=spec.label, **moved)


def one_step(model: nn.Module, phase: PlanPhase, meant: Meaning, side: int) -> dict[str, Any]:
    """Compares every tensor with what it was before the step, bit for bit: the fields of `Stepped`."""
    stepper = Stepper(model, phase, SETTINGS, _loss(), ALONE)
    before = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
    gradients = _watched_gradients(model)
    stepper.step(torch.rand(BATCH, 3, side, side), torch.arange(BATCH), 0, 1)
    moved = {name for name, tensor in _tensors(model).items() if not _same_bits(tensor, before[name])}
    fixed, trainable = {*meant.frozen, *meant.still_buffers}, set(meant.trainable)
    should_move = {name for name in trainable if gradients.get(name)}
    return {
        "frozen": len(meant.frozen),
        "still_buffers": len(meant.still_buffers),
        "frozen_moved": len(fixed & moved),
        "trainable": len(trainable),
        "trainable_moved": len(trainable & moved),
        "no_gradient": len(trainable - gradients.keys()),
        "zero_gradient": sum(gradients.get(name) is False for name in trainable),
        "stuck": len(should_move - moved),
        "buffers_moved": len(moved - fixed - trainable),
        "wrong": sorted((fixed & moved) | (should_move - moved) | (gradients.keys() - trainable)),
    }


def smallest_side(name: str) -> int:
    """The least multiple of 32 pixels (of a patch, in a ViT) with which it trains, tried without numbers."""
    if name.startswith("vit_"):
        return 2 * int(name.rpartition("_")[2])
    if catalog.get(name).fixed_size:
        return catalog.get(name).image_size[0]
    model = without_numbers(name, 0).train()
    return next(side for side in SIDES if _takes(model, side))


def build(name: str, side: int) -> nn.Module:
    """The network with random values. `side` is for those that are built for one picture size."""
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options = {"image_size": side}
    elif name in ("googlenet", "inception_v3"):
        options = {"init_weights": False}
    elif catalog.get(name).task == "segmentation":
        options = {"weights_backbone": None, **({} if name.startswith("lraspp") else {"aux_loss": True})}
    model: nn.Module = import_torchvision().models.get_model(
        name, weights=None, num_classes=NUM_CLASSES, **options
    )
    return model


def without_numbers(name: str, side: int) -> nn.Module:
    """The network on the meta device: built at once, whatever its size."""
    with _ParametersOnMeta():
        model = build(name, side)
    return model.to("meta")


class _ParametersOnMeta(TorchFunctionMode):
    """Parameters begin as `torch.empty`; the few other tensors are small, and some widths come from them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        placed = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **placed})


def _takes(model: nn.Module, side: int) -> bool:
    try:
        with torch.no_grad():
            model(torch.empty(BATCH, 3, side, side, device="meta"))
    except (RuntimeError, ValueError):
        return False
    return True


def _loss() -> TaskLoss:
    task = Classification([str(number) for number in range(NUM_CLASSES)], label_smoothing=0.0)
    return TaskLoss(task, Precision(None, "fp32", "cpu"))


def _watched_gradients(model: nn.Module) -> dict[str, bool]:
    """Filled by the backward: for each parameter that gets a gradient, whether any of it is not zero."""
    found: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: found.update({name: bool(p.grad.any())})
            )
    return found


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers(remove_duplicate=False))}


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other)))
