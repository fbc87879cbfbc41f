"""The memory that a plan reckons with, counted by hand on a network of 117 parameters."""

from __future__ import annotations

from typing import Any

import pytest
from planned_network import HEAD_THEN_ALL, SIZE, subject

from shared.domain.memory import CONTEXT_BYTES, largest_batch
from shared.domain.plan import planned
from shared.domain.plan_figures import Memory, PhaseMemory

PARAMETERS = 4 * 117
BUFFERS = 20 + 8
HEAD = 4 * 42
KEPT = 2_400 + 1_000 + 1_100 + 300 + 1_200
PICTURE = 3 * 5 * SIZE[0] * SIZE[1]
IN_A_FORWARD = 2_200
"""Of one sample without gradients, while dropout runs: what it reads, and what it makes."""


def memory(*args: Any, **changes: Any) -> Memory:
    return planned(subject(*args, **changes)).figures.memory


def only(*args: Any, **changes: Any) -> PhaseMemory:
    (phase,) = memory(*args, **changes).phases
    return phase


def test_training_everything_holds_gradients_moments_and_all_that_backward_reads() -> None:
    phase = only("none")
    assert phase.weights_bytes == PARAMETERS + BUFFERS
    assert phase.gradients_bytes == PARAMETERS
    assert phase.optimizer_bytes == 2 * PARAMETERS
    assert phase.autocast_bytes == 0
    assert phase.activations_bytes == 4 * KEPT
    assert phase.input_bytes == 4 * PICTURE
    assert phase.transient_bytes == 4 * (1_000 + 1_600)  # the gradients around the convolution
    assert phase.context_bytes == CONTEXT_BYTES["cuda"]


def test_the_parts_add_up_to_the_total() -> None:
    for phase in memory(HEAD_THEN_ALL, validates=True, precision="auto").phases:
        parts = phase.model_dump(exclude={"from_epoch", "total_bytes"})
        assert phase.total_bytes == sum(parts.values())


def test_a_frozen_backbone_keeps_only_what_the_head_reads() -> None:
    phase = only("backbone")
    assert phase.weights_bytes == PARAMETERS + BUFFERS
    assert phase.gradients_bytes == HEAD
    assert phase.optimizer_bytes == 2 * HEAD
    assert phase.activations_bytes == 4 * 1_200
    assert phase.transient_bytes == 4 * IN_A_FORWARD


def test_what_is_frozen_behind_a_trained_part_still_passes_the_gradient() -> None:
    rules = {"rules": [{"freeze": "**"}, {"train": "conv"}]}
    # fc passes it with its weight alone, so what it reads is not kept.
    assert only(rules).activations_bytes == 4 * (KEPT - 1_200)


@pytest.mark.parametrize(
    ("changes", "moments"),
    [({"optimizer": "sgd"}, 1), ({"optimizer": "sgd", "momentum": 0.0}, 0), ({"optimizer": "adamw"}, 2)],
)
def test_the_optimizer_decides_how_many_moments_there_are(changes: dict[str, Any], moments: int) -> None:
    assert only("none", **changes).optimizer_bytes == moments * PARAMETERS


def test_half_precision_halves_activations_save_those_of_layer_norms_and_copies_the_weights() -> None:
    phase = only("none", precision="auto")
    assert phase.activations_bytes == 4 * (KEPT + 1_100) // 2
    assert phase.autocast_bytes == 2 * (60 + 35)  # of conv and fc, without biases and norms
    assert phase.gradients_bytes == PARAMETERS


def test_unasked_a_gpu_computes_in_half_and_a_cpu_does_not() -> None:
    assert memory(precision="auto").precision == "bf16 or fp16"
    on_cpu = memory(precision="auto", device="cpu")
    assert on_cpu.precision == "fp32"
    assert on_cpu.phases[0].activations_bytes == 4 * KEPT
    assert on_cpu.phases[0].context_bytes == CONTEXT_BYTES["cpu"]


def test_larger_pictures_take_more_by_their_area() -> None:
    phase = only("none", size=(20, 40))
    assert phase.activations_bytes == 4 * 4 * KEPT
    assert phase.input_bytes == 4 * 4 * PICTURE
    assert phase.weights_bytes == PARAMETERS + BUFFERS


def test_devices_share_the_batch_and_each_holds_the_whole_network() -> None:
    shared = memory("none", world_size=2)
    assert shared.batch_size_per_device == 2
    assert shared.phases[0].activations_bytes == 2 * KEPT
    assert shared.phases[0].gradients_bytes == PARAMETERS


def test_an_evaluation_of_twice_the_batch_may_be_the_worst_moment() -> None:
    held = 4 * (1_200 + PICTURE)
    assert only("backbone", validates=True).transient_bytes == 4 * 2 * (IN_A_FORWARD + PICTURE) - held


def test_a_networks_update_may_be_the_worst_moment() -> None:
    smallest = only("none", size=(1, 1), batch_size=1)
    held = (KEPT + PICTURE) / (SIZE[0] * SIZE[1])
    assert smallest.transient_bytes == pytest.approx(PARAMETERS - held, abs=1)


@pytest.mark.parametrize(("weight_decay", "has_intermediates"), [(0.0, False), (0.1, True)])
def test_plain_gradient_descent_updates_in_place(weight_decay: float, has_intermediates: bool) -> None:
    job = subject("none", size=(1, 1), optimizer="sgd", momentum=0.0, weight_decay=weight_decay)
    update = planned(job).needs["cuda"][0].update
    assert update == (PARAMETERS if has_intermediates else 0)


def test_the_largest_batch_is_no_larger_than_what_is_asked_about() -> None:
    phases = planned(subject("none")).needs["cuda"]
    for most in (1, 7, 512):
        assert largest_batch(phases, 2**60, most) == most


def test_each_phase_counts_for_itself_and_the_worst_is_the_total() -> None:
    found = memory(HEAD_THEN_ALL)
    first, second = found.phases
    assert (first.from_epoch, second.from_epoch) == (0, 2)
    assert first.gradients_bytes == HEAD
    assert second.gradients_bytes == PARAMETERS
    assert found.total_bytes == second.total_bytes
    assert (first.total_bytes or 0) < (second.total_bytes or 0)


def test_where_the_flow_is_not_known_neither_are_the_activations_and_it_says_why() -> None:
    found = memory(flow=None)
    assert found.total_bytes is None
    assert found.phases[0].activations_bytes is None
    assert found.phases[0].gradients_bytes == PARAMETERS
    assert "its package tells no picture size" in (found.reason or "")


def test_it_says_how_it_was_made_and_what_it_leaves_out() -> None:
    found = memory()
    assert "estimate" in found.method
    assert "10x20" in found.method
    assert "fragmentation" in found.left_out
