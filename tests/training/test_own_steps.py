"""Networks that bring their own training steps: what each step moves, what it proves, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainer_runs import MakeSpec, Ran, RunHere

from shared.domain.events import TrainerSpec
from worker.training import checkpoint_folder
from worker.training.errors import TrainingFailed
from worker.training.freezing import FrozenPart
from worker.training.network import build_network
from worker.training.own_steps.guard import Guard

PARTS = {"generator": ("0", "1", "3"), "discriminator": ("0", "1", "4")}
NORMS = {"generator": "generator.1", "discriminator": "discriminator.1"}


@pytest.fixture
def pair(make_spec: MakeSpec) -> MakeSpec:
    """100 scans in 7 batches, once over."""
    settings = {"optimizer": "adamw", "learning_rate": 0.005}
    return lambda model="pair", hyperparameters=None, **changes: make_spec(
        model, task="custom", hyperparameters={**settings, **(hyperparameters or {})}, **changes
    )


def moved(spec: TrainerSpec, ran: Ran) -> set[str]:
    """The modules of which a parameter or buffer is another than before the run."""
    before, after = build_network(spec).state_dict(), load_file(ran.out / "model.safetensors")
    return {name.rpartition(".")[0] for name in after if not torch.equal(before[name], after[name])}


def modules_of(*halves: str) -> set[str]:
    return {f"{half}.{part}" for half in halves for part in PARTS[half]}


class TestWhatMoves:
    def test_both_halves_learn_in_turn_and_each_stands_still_while_the_other_does(
        self, pair: MakeSpec, run_here: RunHere
    ) -> None:
        spec = pair(validation_fraction=0.2, hyperparameters={"n_epochs": 2})

        ran = run_here(spec)

        assert moved(spec, ran) == modules_of("generator", "discriminator")
        (phase,) = ran.result.phases
        assert [step.name for step in phase.steps] == ["discriminator", "generator"]
        for step in phase.steps:
            assert (step.done, step.n_checks, step.unchanged) == (10, 10, True)
            # Two weighted layers and a normalisation with its three buffers on the other side.
            assert (step.n_parameters, step.n_buffers) == (6, 3)
            assert step.first is not None
            assert step.last is not None
            assert (step.first.step, step.last.step) == (1, 10)
            assert step.first.before == step.first.after != step.last.before == step.last.after
        assert phase.n_trainable == sum(step.n_trainable for step in phase.steps)

    def test_a_network_that_cannot_be_called_itself(self, pair: MakeSpec, run_here: RunHere) -> None:
        assert run_here(pair("silent", validation_fraction=0.2)).errors == []

    @pytest.mark.parametrize(
        ("frozen", "left"), [("discriminator", "generator"), ("generator", "discriminator")]
    )
    def test_what_the_job_freezes_no_step_moves(
        self, pair: MakeSpec, run_here: RunHere, frozen: str, left: str
    ) -> None:
        spec = pair(freeze=[frozen])

        ran = run_here(spec)

        assert moved(spec, ran) == modules_of(left)
        (step,) = ran.result.phases[0].steps
        assert step.name == left
        assert ran.result.frozen_proof.n_parameters == 6
        assert ran.result.frozen_proof.n_buffers == 3
        assert step.first is not None
        assert step.last is not None
        assert step.first.before == step.last.after
        assert ran.note("step_left_out").data == {"from_epoch": 0, "step": frozen}
        assert set(ran.of_type("train")[-1].metrics) == {f"{left}_loss"}

    def test_a_schedule_brings_a_step_in(
        self, pair: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint_folder, "KEPT", 100)
        spec = pair(freeze=["discriminator"], later={1: "none"}, hyperparameters={"n_epochs": 2})

        ran = run_here(spec)

        first, second = ran.result.phases
        assert [(step.name, step.done) for step in first.steps] == [("generator", 7)]
        assert [(step.name, step.done) for step in second.steps] == [("discriminator", 7), ("generator", 7)]
        moving = load_file(ran.out / ran.of_type("checkpoint")[0].folder / "moving.safetensors")
        before = build_network(spec).state_dict()
        assert torch.equal(moving["discriminator.0.weight"], before["discriminator.0.weight"])
        assert [set(line.metrics) for line in ran.of_type("train") if line.step in (7, 14)] == [
            {"generator_loss"},
            {"discriminator_loss", "generator_loss"},
        ]

    def test_statistics_of_the_frozen_half_move_by_request_and_the_proof_leaves_them_out(
        self, pair: MakeSpec, run_here: RunHere
    ) -> None:
        ran = run_here(pair(freeze={"batch_norm": "train"}))

        for step, other in zip(ran.result.phases[0].steps, ("generator", "discriminator"), strict=True):
            assert step.left_out == [NORMS[other]]
            assert (step.n_parameters, step.n_buffers) == (6, 0)

    def test_a_learning_rate_scale_holds_in_the_step_that_trains_its_part(
        self, pair: MakeSpec, run_here: RunHere
    ) -> None:
        """A first step of AdamW moves a weight by the learning rate, whatever its gradient."""
        once = {"batch_size": 100, "weight_decay": 0.0, "lr_schedule": "constant"}
        spec = pair(freeze={"rules": [{"train": "generator.3", "lr_scale": 0.25}]}, hyperparameters=once)

        ran = run_here(spec)

        before, after = build_network(spec).state_dict(), load_file(ran.out / "model.safetensors")
        for name, rate in (("generator.3.bias", 0.00125), ("discriminator.4.weight", 0.005)):
            steps = (after[name] - before[name]).abs()
            assert steps.median().item() == pytest.approx(rate, rel=0.01), name


class TestFigures:
    def test_the_loss_is_the_sum_of_the_steps_and_each_is_told_by_name(
        self, pair: MakeSpec, run_here: RunHere
    ) -> None:
        ran = run_here(pair(validation_fraction=0.2))

        (epoch,) = ran.result.epochs
        for when in ("train", "validation"):
            parts = [epoch[f"{when}_discriminator_loss"], epoch[f"{when}_generator_loss"]]
            assert epoch[f"{when}_loss"] == pytest.approx(sum(parts), rel=1e-6)
        (line,) = ran.of_type("validation")
        assert set(line.metrics) == {"discriminator_loss", "generator_loss"}
        assert line.main_metric is None
        assert line.n_samples == 20

    def test_what_evaluation_draws_is_drawn_alike_and_changes_no_training(
        self, pair: MakeSpec, run_here: RunHere, held_out: Path
    ) -> None:
        fixed = {"validation": {"path": str(held_out), "format": "image_folder"}}
        settings = {"n_epochs": 2, "keep": "last", "learning_rate": 1e-12, "weight_decay": 0.0}
        with_it = run_here(pair(**fixed, hyperparameters=settings), "with")
        without = run_here(pair(hyperparameters=settings), "without")

        first, second = with_it.result.epochs
        for step in ("generator", "discriminator"):
            figure = f"validation_{step}_loss"
            assert first[figure] == pytest.approx(second[figure], rel=0.05)
        one, other = (load_file(ran.out / "model.safetensors") for ran in (with_it, without))
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "tensor"),
        [("meddling", "discriminator.4.weight"), ("unstill", "discriminator.1.running_mean")],
    )
    def test_a_step_that_moves_what_is_frozen_in_it(
        self, pair: MakeSpec, run_here: RunHere, model: str, tensor: str
    ) -> None:
        ran = run_here(pair(model))

        assert ran.error["code"] == "frozen_part_moved"
        assert "the training step 'generator' moved" in ran.error["message"]
        assert tensor in ran.error["message"]
        assert "at step 3" in ran.error["message"]
        assert not (ran.out / "result.json").exists()

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            (
                "one_for_each",
                "the loss of the training step 'generator' is a tensor of float32 and shape [16]",
            ),
            ("wordy", "the loss of the training step 'discriminator' is a dict"),
            ("endless", "the loss of the training step 'generator' is not finite (inf)"),
            ("raising", "ValueError: the noise is too quiet"),
        ],
    )
    def test_a_loss_that_is_no_finite_number(
        self, pair: MakeSpec, run_here: RunHere, model: str, said: str
    ) -> None:
        ran = run_here(pair(model))

        assert ran.error["code"] == "bad_training_step"
        assert said in ran.error["message"]
        assert [line.phase for line in ran.of_type("phase")] == ["loading", "preflight"]

    def test_a_loss_that_cannot_be_evaluated_only_where_there_is_validation(
        self, pair: MakeSpec, run_here: RunHere
    ) -> None:
        ran = run_here(pair("impatient", validation_fraction=0.2), "evaluated")
        assert ran.error["code"] == "bad_training_step"
        assert "does not require grad" in ran.error["message"]

        assert run_here(pair("impatient"), "alone").errors == []

    def test_a_loss_that_nothing_takes_part_in(self, pair: MakeSpec, run_here: RunHere) -> None:
        ran = run_here(pair("detached"))
        assert ran.error["code"] == "nothing_learns"
        assert "training step 'generator': no trainable parameter" in ran.error["message"]

    def test_a_method_that_is_not_there_with_the_nearest(self, pair: MakeSpec, run_here: RunHere) -> None:
        spec = pair()
        (phase,) = spec.freeze_plan.phases
        steps = (phase.steps[0], phase.steps[1].model_copy(update={"loss": "generater_loss"}))
        plan = spec.freeze_plan.model_copy(update={"phases": (phase.model_copy(update={"steps": steps}),)})

        ran = run_here(spec.model_copy(update={"freeze_plan": plan}))

        assert ran.error["code"] == "bad_training_step"
        assert "'generater_loss'" in ran.error["message"]
        assert "nearest names are generator_loss, " in ran.error["message"]

    def test_a_plan_without_the_steps(self, pair: MakeSpec, run_here: RunHere) -> None:
        spec = pair()
        (phase,) = spec.freeze_plan.phases
        plan = spec.freeze_plan.model_copy(update={"phases": (phase.model_copy(update={"steps": ()}),)})

        ran = run_here(spec.model_copy(update={"freeze_plan": plan}))

        assert ran.error["code"] == "plan_mismatch"


class TestGuard:
    @pytest.mark.parametrize(
        ("value", "other"),
        [
            (torch.tensor([0.0]), torch.tensor([-0.0])),
            (torch.tensor([1.0]), torch.tensor([1.0 + 2**-23])),
            (torch.tensor(3), torch.tensor(4)),
            (torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([1.0])),
            (torch.zeros(2, 3), torch.zeros(3, 2)),
        ],
    )
    def test_a_bit_counts(self, value: torch.Tensor, other: torch.Tensor) -> None:
        model, part = torch.nn.Module(), FrozenPart((), ("held",), ())
        model.register_buffer("held", value)
        guard = Guard(model)
        guard.begin(part)
        model.held = other

        with pytest.raises(TrainingFailed, match=r"'a' moved 1 tensors .* in it, at step 7: held"):
            guard.end(part, "a", 7)

    def test_what_is_no_number_is_the_same_where_its_bits_are(self) -> None:
        model, part = torch.nn.Module(), FrozenPart((), ("held",), ())
        model.register_buffer("held", torch.tensor([[float("nan"), float("inf")]]).T)
        guard = Guard(model)
        guard.begin(part)

        guard.end(part, "a", 1)
