"""What a freeze plan needs of a network's flow, on flows made by hand."""

from __future__ import annotations

import json

from shared.domain.flow import Flow, FlowStep, Kept, Varies
from shared.domain.flow_needs import flow_needs

NORM = FlowStep(
    "norm",
    inputs=(0,),
    parameters=("norm.weight",),
    kept=(Kept(1, (0,), ("norm.weight",)),),
    output_bytes=40,
    working_bytes=40,
    varies=Varies.TRAINING,
)
CONV = FlowStep(
    "conv",
    inputs=(),
    parameters=("conv.weight",),
    kept=(Kept(0, (), ("conv.weight",)),),
    output_bytes=40,
    working_bytes=60,
)


def residual() -> Flow:
    """conv, norm, an in-place relu that keeps its result, the sum with conv's result, and a head."""
    relu = FlowStep("relu", inputs=(1,), kept=(Kept(2, (1,)),), output_bytes=40)
    add = FlowStep("", inputs=(0, 2), output_bytes=40, working_bytes=40)
    head = FlowStep(
        "head",
        inputs=(3,),
        parameters=("head.weight", "head.bias"),
        kept=(Kept(3, (), ("head.weight",)),),
        output_bytes=4,
        working_bytes=4,
    )
    return Flow((8, 8), (CONV, NORM, relu, add, head), (7, 40, 41, 42))


ALL = ["conv.weight", "norm.weight", "head.weight", "head.bias"]


def test_all_steps_that_train_keep_their_tensors() -> None:
    needs = flow_needs(residual(), ALL, still=[])
    assert needs.backward == {0, 1, 2, 3, 4}
    assert needs.kept_bytes == 7 + 40 + 41 + 42
    assert needs.transient_bytes == 0
    assert needs.fixed == set()


def test_a_frozen_step_between_passes_the_gradient_and_keeps_what_that_takes() -> None:
    needs = flow_needs(residual(), ["conv.weight"], still=["norm", "head"])
    assert needs.backward == {0, 1, 2, 3, 4}
    assert needs.kept_bytes == 7 + 40 + 41


def test_nothing_is_kept_below_the_lowest_step_that_trains() -> None:
    needs = flow_needs(residual(), ["head.weight", "head.bias"], still=["conv", "norm", "relu"])
    assert needs.backward == {4}
    assert needs.kept_bytes == 42


def test_a_bias_alone_needs_nothing_kept() -> None:
    needs = flow_needs(residual(), ["head.bias"], still=["conv", "norm"])
    assert (needs.backward, needs.kept_bytes) == ({4}, 0)


def test_a_tensor_that_two_steps_keep_counts_once() -> None:
    steps = (CONV, FlowStep("a", (0,), ("a.w",), (Kept(1, (0,), ("a.w",)),)))
    twice = Flow((8, 8), (*steps, FlowStep("b", (0,), ("b.w",), (Kept(1, (0,), ("b.w",)),))), (7, 40))
    assert flow_needs(twice, ["a.w", "b.w"], still=[]).kept_bytes == 40


def test_the_transient_counts_what_lives_beside_a_step() -> None:
    needs = flow_needs(residual(), ["head.weight"], still=["conv", "norm"])
    # When the sum is made, conv's result and norm's (which relu wrote into) are still there.
    assert needs.transient_bytes == 40 + 40 + 40
    assert flow_needs(residual(), ["norm.weight"], still=["conv"]).transient_bytes == 60


def test_the_prefix_is_fixed_while_its_norm_is_still() -> None:
    needs = flow_needs(residual(), ["head.weight"], still=["conv", "norm"])
    assert needs.fixed == {0, 1, 2, 3}
    assert (needs.edge, needs.edge_bytes) == ((3,), 40)


def test_a_norm_in_training_mode_ends_the_prefix_though_it_is_frozen() -> None:
    needs = flow_needs(residual(), ["head.weight"], still=["conv"])
    assert needs.fixed == {0}
    assert (needs.edge, needs.edge_bytes) == ((0,), 40)
    assert needs.backward == {4}


def test_noise_that_eval_mode_draws_too_is_never_fixed() -> None:
    noisy = Flow((8, 8), (FlowStep("noise", (), varies=Varies.ALWAYS), FlowStep("head", (0,), ("w",))), ())
    assert flow_needs(noisy, ["w"], still=["noise"]).fixed == set()


def test_a_detached_result_needs_no_backward_and_still_decides_what_is_fixed() -> None:
    probe = Flow((8, 8), (CONV, FlowStep("head", (), ("w",), detached=(0,))), (7,))
    assert flow_needs(probe, ["w"], still=["conv"]).backward == {1}
    trained = flow_needs(probe, ["conv.weight"], still=["head"])
    assert trained.backward == {0}
    assert trained.fixed == set()


def test_a_flow_survives_json() -> None:
    flow = residual()
    assert Flow.from_data(json.loads(json.dumps(flow.to_data()))) == flow
