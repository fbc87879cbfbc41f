"""A network's own training steps: what is read, what each trains under a freeze spec, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.errors import Invalid
from shared.domain.freeze import FreezePlan, PlanPhase, parse_freeze, resolve
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo
from shared.domain.training_steps import check_steps, read_steps

STATISTICS = (TensorInfo("running_mean", (4,)), TensorInfo("running_var", (4,)))
SCALE = (TensorInfo("weight", (4,)), TensorInfo("bias", (4,)))


def half(name: str) -> tuple[ModuleInfo, ...]:
    return (
        ModuleInfo(name, "Sequential"),
        ModuleInfo(f"{name}.0", "Conv2d", (TensorInfo("weight", (4, 3, 2, 2)),)),
        ModuleInfo(f"{name}.1", "BatchNorm2d", SCALE, STATISTICS),
        ModuleInfo(f"{name}.2", "ReLU"),
    )


# `judge` is in no step: a fixed network that a loss looks at.
PAIR = ModuleTree(
    modules=(
        ModuleInfo("", "Pair"),
        *half("generator"),
        *half("discriminator"),
        ModuleInfo("judge", "Conv2d", (TensorInfo("weight", (7, 1)),)),
    ),
    aliases={},
    head=(),
    blocks=(),
    num_classes=None,
)
DISCRIMINATOR = {"name": "discriminator", "train": "discriminator", "loss": "discriminator_loss"}
GENERATOR = {"name": "generator", "train": ["generator"], "loss": "generator_loss"}
BOTH = [DISCRIMINATOR, GENERATOR]


def below(*paths: str) -> set[str]:
    return {name for name in PAIR.names if any(name.startswith(f"{path}.") for path in paths)}


def planned(freeze: Any, steps: Any = BOTH) -> FreezePlan:
    return resolve(parse_freeze(freeze), PAIR, training_steps=read_steps(steps))


def only_phase(freeze: Any, steps: Any = BOTH) -> PlanPhase:
    (phase,) = planned(freeze, steps).phases
    return phase


def refusal(freeze: Any, steps: Any = BOTH) -> Invalid:
    with pytest.raises(Invalid) as refused:
        planned(freeze, steps)
    return refused.value


class TestPlan:
    def test_each_step_trains_what_its_patterns_match_and_freezes_all_else(self) -> None:
        phase = only_phase("none")

        assert [step.name for step in phase.steps] == ["discriminator", "generator"]
        discriminator, generator = phase.steps
        for step, trained, kept in (
            (discriminator, "discriminator", "generator"),
            (generator, "generator", "discriminator"),
        ):
            alone = phase.in_step(step)
            assert set(alone.trainable) == below(trained)
            assert set(alone.frozen) == set(PAIR.names) - below(trained)
            assert {kept, f"{kept}.0", f"{kept}.1", f"{kept}.2", "judge"} == set(alone.still)
            assert (alone.n_trainable, alone.n_frozen) == (48 + 8, 48 + 8 + 7)

    def test_what_no_step_trains_is_frozen_though_no_rule_says_so(self) -> None:
        phase = only_phase("none")

        assert phase.frozen == ("judge.weight",)
        assert phase.still == ("judge",)
        assert (phase.n_trainable, phase.n_frozen) == (2 * 56, 7)

    @pytest.mark.parametrize(
        ("frozen", "left"), [("generator", "discriminator"), ("discriminator", "generator")]
    )
    def test_a_step_that_the_job_leaves_nothing_is_left_out(self, frozen: str, left: str) -> None:
        phase = only_phase([frozen])

        assert {step.name: step.is_left_out for step in phase.steps} == {frozen: True, left: False}
        assert set(phase.trainable) == below(left)
        assert f"{frozen}.1" in phase.still

    def test_a_step_keeps_what_the_job_leaves_of_it(self) -> None:
        generator = only_phase(["generator.0"]).steps[1]

        assert generator.trainable == ("generator.1.weight", "generator.1.bias")
        assert "generator.0" in generator.still
        assert "generator.1" not in generator.still

    def test_the_steps_of_every_phase_of_a_schedule(self) -> None:
        thaws = {
            "rules": [{"freeze": "discriminator"}],
            "schedule": [{"at_epoch": 1, "train": "discriminator"}],
        }

        first, second = planned(thaws).phases

        assert [step.is_left_out for step in first.steps] == [True, False]
        assert [step.is_left_out for step in second.steps] == [False, False]

    def test_a_learning_rate_scale_goes_with_its_part(self) -> None:
        phase = only_phase({"rules": [{"train": "discriminator", "lr_scale": 0.25}]})

        assert phase.in_step(phase.steps[0]).lr_scale == dict.fromkeys(below("discriminator"), 0.25)
        assert phase.in_step(phase.steps[1]).lr_scale == {}

    def test_statistics_of_the_frozen_half_move_by_request(self) -> None:
        phase = only_phase({"batch_norm": "train"})

        discriminator = phase.in_step(phase.steps[0])
        assert "generator.1" not in discriminator.still
        assert discriminator.unproved_buffers == ("generator.1",)
        assert phase.unproved_buffers == ()

    def test_two_steps_may_share_a_part(self) -> None:
        shared = [DISCRIMINATOR, {**GENERATOR, "train": ["generator", "discriminator.0"]}]

        first, second = only_phase("none", shared).steps

        assert "discriminator.0.weight" in first.trainable
        assert "discriminator.0.weight" in second.trainable
        assert "discriminator.0" not in second.still


class TestRefusals:
    def test_steps_that_are_all_left_nothing(self) -> None:
        refused = refusal(["generator", "discriminator"])
        assert refused.code == "nothing_trainable"
        assert refused.param == "freeze"
        assert "discriminator: discriminator; generator: generator" in refused.message

    def test_a_phase_whose_steps_are_all_left_nothing(self) -> None:
        entry = {"at_epoch": 2, "freeze": ["generator", "discriminator"]}
        refused = refusal({"schedule": [entry]})
        assert "from epoch 2 on every training step" in refused.message

    def test_a_rule_that_trains_what_no_step_does(self) -> None:
        refused = refusal({"rules": [{"train": "generator"}, {"train": "judge", "lr_scale": 0.5}]})
        assert refused.param == "freeze.rules[1]"
        assert refused.code == "no_effect"
        assert "'judge'" in refused.message

    def test_batch_norm_without_any_frozen_normalisation(self) -> None:
        everything = [{"name": "all", "train": "**", "loss": "all_loss"}]
        assert refusal({"batch_norm": "train"}, everything).param == "freeze.batch_norm"

    def test_a_pattern_that_matches_nothing_names_the_nearest(self) -> None:
        with pytest.raises(Invalid) as refused:
            check_steps(read_steps([DISCRIMINATOR, {**GENERATOR, "train": "generater"}]), PAIR)
        assert refused.value.param == "training_steps[1].train[0]"
        assert refused.value.code == "pattern_matches_nothing"
        assert "generator" in refused.value.message

    @pytest.mark.parametrize(
        ("steps", "param", "said"),
        [
            (None, "training_steps", "a sequence of 1 to 16 steps"),
            ([], "training_steps", "at least 1 item"),
            ([DISCRIMINATOR] * 17, "training_steps", "at most 16 items"),
            ("generator", "training_steps", "valid tuple"),
            ([("generator", "generator", "generator_loss")], "training_steps[0]", '"loss": name of a method'),
            ([{"name": "g", "train": "generator"}], "training_steps[0].loss", "Field required"),
            ([{**GENERATOR, "every": 2}], "training_steps[0].every", "'every' is no field here"),
            ([{**GENERATOR, "name": "Gen step"}], "training_steps[0].name", "match pattern"),
            ([{**GENERATOR, "train": []}], "training_steps[0].train", "at least 1 item"),
            ([{**GENERATOR, "loss": lambda: 0}], "training_steps[0].loss", "valid string"),
            ([{**GENERATOR, "train": "generator..0"}], "training_steps[0].train[0]", "empty part"),
            ([GENERATOR, GENERATOR], "training_steps", "2 steps have the name 'generator'"),
        ],
    )
    def test_malformed_steps(self, steps: Any, param: str, said: str) -> None:
        with pytest.raises(Invalid) as refused:
            read_steps(steps)
        assert refused.value.param == param
        assert said in refused.value.message
