"""What an optimizer takes over from the phase before, by the names of parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scans import CLASSES
from small_networks import Residual
from trainer_runs import HYPERPARAMETERS, plan_of

from shared.domain.freeze import PlanPhase
from shared.domain.spec import ResolvedHyperparameters
from worker.training.freezing import freeze, trainable_parameters
from worker.training.network_tree import describe_module
from worker.training.optimizer import make_optimizer, moments, put_back_moments
from worker.training.precision import Precision
from worker.training.ranks import Ranks
from worker.training.stepping import Stepper, TaskLoss
from worker.training.tasks.classification import Classification

ONLY = {part: {"rules": [{"freeze": "**"}, {"train": [part, "fc"]}]} for part in ("layer2", "layer3")}
ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "momentum": 0.0},
    {"optimizer": "adamw"},
]


@pytest.fixture
def model() -> Residual:
    torch.manual_seed(0)
    return Residual()


def phases(model: Residual, scale: float = 1.0) -> list[PlanPhase]:
    """The head learns throughout; layer3, then layer2, then layer3 again learn with it, at `scale`."""
    by_epoch = {0: ONLY["layer3"], 1: ONLY["layer2"], 2: ONLY["layer3"]}
    plan = plan_of(by_epoch, describe_module(model, "fc"))
    return [
        phase.model_copy(update={"lr_scale": {n: scale for n in phase.trainable if not n.startswith("fc")}})
        for phase in plan.phases
    ]


@pytest.mark.parametrize("changes", OPTIMIZERS)
def test_moments_stay_with_their_names_and_what_thaws_again_starts_anew(
    model: Residual, changes: dict[str, Any]
) -> None:
    settings = ResolvedHyperparameters.model_validate({**HYPERPARAMETERS, **changes})
    carried: dict[str, Any] = {}
    for number, phase in enumerate(phases(model, scale=0.1)):
        freeze(model, phase)
        optimizer = make_optimizer(model, phase, settings)
        put_back_moments(optimizer, carried)

        now = moments(optimizer)
        stayed = {"fc.weight", "fc.bias"} if number and changes.get("momentum", 1) else set()
        assert now.keys() == stayed
        assert all(
            torch.equal(value, carried[name][key]) for name in stayed for key, value in now[name].items()
        )
        assert [len(group["params"]) for group in optimizer.param_groups] == [7, 2]

        for _ in range(2):
            model(torch.randn(4, 3, 16, 16)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        carried = moments(optimizer)


def test_the_gradient_scaler_goes_on_with_its_scale(model: Residual) -> None:
    settings = ResolvedHyperparameters.model_validate(HYPERPARAMETERS)
    loss = TaskLoss(Classification(CLASSES, 0.0), Precision(torch.float16, "", "cpu"))
    before, after = (Stepper(model, phase, settings, loss, ALONE) for phase in phases(model)[:2])
    fresh = after.scaler.get_scale()
    before.scaler.scale(torch.ones(()))
    before.scaler.update(fresh / 8)

    after.go_on_from(before.saved())

    assert after.scaler.state_dict() == before.scaler.state_dict()
    assert after.scaler.get_scale() == fresh / 8


def test_a_scale_multiplies_the_first_step_of_every_phase(model: Residual) -> None:
    changes = {"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5, "lr_schedule": "constant"}
    settings = ResolvedHyperparameters.model_validate({**HYPERPARAMETERS, **changes})
    loss = TaskLoss(Classification(CLASSES, 0.0), Precision(None, "", "cpu"))
    for number, phase in enumerate(phases(model, scale=0.25)):
        stepper = Stepper(model, phase, settings, loss, ALONE)
        parameters = trainable_parameters(model)
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        gradients: dict[str, torch.Tensor] = {}
        stepper.optimizer.register_step_pre_hook(
            lambda *_: gradients.update({n: p.grad.clone() for n, p in parameters.items()})  # noqa: B023 - called in this very round
        )

        stepper.step(torch.randn(4, 3, 16, 16), torch.arange(4), number, total=3)

        assert any(name.startswith("layer") for name in parameters)
        for name, parameter in parameters.items():
            rate = 0.5 if name.startswith("fc") else 0.5 * 0.25
            assert torch.equal(parameter.detach(), before[name] - rate * gradients[name]), name
