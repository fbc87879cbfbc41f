"""What a person asks for and a network has no use for is refused when the job is submitted."""

from __future__ import annotations

from typing import Any

import pytest

from shared import catalog
from shared.domain.effects import check_effects, check_warmup
from shared.domain.errors import Invalid
from shared.domain.freeze import parse_freeze, resolve
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo
from shared.domain.spec import Hyperparameters, ResolvedHyperparameters, resolve_hyperparameters

LAYERS = [ModuleInfo(name, "Conv2d", (TensorInfo("weight", (2,)),)) for name in ("one", "two", "fc")]
FLAT = ModuleTree((ModuleInfo("", "Net"), *LAYERS), {}, ("fc",), ("one", "two"), 2)
THAWING = {"rules": [{"freeze": "**"}, {"train": "@head"}], "schedule": [{"at_epoch": 1, "train": "last:1"}]}


def check(model: str | ModuleTree, freeze: Any, option: str) -> None:
    tree = catalog.get(model).tree if isinstance(model, str) else model
    plan = resolve(parse_freeze(freeze), tree)
    check_effects(resolve_hyperparameters(Hyperparameters(**{option: True}), 1), tree, plan)


@pytest.mark.parametrize(
    ("model", "freeze", "option"),
    [
        ("resnet18", "none", "sync_batch_norm"),
        ("resnet18", THAWING, "sync_batch_norm"),
        ("resnet18", {"rules": [{"freeze": "layer1"}], "batch_norm": "train"}, "sync_batch_norm"),
        ("resnet18", THAWING, "gradient_checkpointing"),
        ("vgg11", "none", "gradient_checkpointing"),
    ],
)
def test_what_has_an_effect_in_any_phase_is_taken(model: str, freeze: Any, option: str) -> None:
    check(model, freeze, option)


@pytest.mark.parametrize(
    ("model", "freeze", "option", "why"),
    [
        ("resnet18", "backbone", "sync_batch_norm", "no BatchNorm layer of this model trains"),
        ("vit_b_16", "none", "sync_batch_norm", "no BatchNorm layer of this model trains"),
        ("resnet18", "backbone", "gradient_checkpointing", "only the head trains"),
        (FLAT, "none", "gradient_checkpointing", "blocks are single layers"),
    ],
)
def test_what_would_change_nothing_is_refused(
    model: str | ModuleTree, freeze: Any, option: str, why: str
) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        check(model, freeze, option)

    assert caught.value.param == f"hyperparameters.{option}"
    assert caught.value.code == "no_effect"


@pytest.mark.parametrize(
    ("n_training", "world_size", "steps"),
    # 70 samples: 4 batches of 16 and one of 6; of 35, the last 3 are too few for two ranks.
    [(70, 2, 10), (35, 2, 4), (35, 1, 6), (3, 1, 2)],
)
def test_a_warm_up_may_last_the_whole_job_and_no_longer(n_training: int, world_size: int, steps: int) -> None:
    def asked(warmup_steps: int) -> ResolvedHyperparameters:
        wanted = Hyperparameters(n_epochs=2, batch_size=16, warmup_steps=warmup_steps)
        return resolve_hyperparameters(wanted, world_size)

    check_warmup(asked(steps), n_training, world_size)
    with pytest.raises(Invalid, match=f"the {steps} steps of this job") as caught:
        check_warmup(asked(steps + 1), n_training, world_size)
    assert caught.value.param == "hyperparameters.warmup_steps"
