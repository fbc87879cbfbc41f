"""Gradient checkpointing in a plan's reckoning: which parts run again, and what is held then."""

from __future__ import annotations

from shared import catalog
from shared.domain.flow import Flow, FlowStep, Kept
from shared.domain.flow_bytes import FlowBytes, Held
from shared.domain.flow_needs import flow_needs
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo
from shared.domain.recomputed import parts_that_run_again, recomputed

WEIGHT = (TensorInfo("weight", (4, 4)),)
TREE = ModuleTree(
    modules=(
        ModuleInfo("", "Net"),
        ModuleInfo("stem", "Conv2d", WEIGHT),
        ModuleInfo("one", "Block"),
        ModuleInfo("one.a", "Conv2d", WEIGHT),
        ModuleInfo("one.b", "LayerNorm", WEIGHT),
        ModuleInfo("two", "Block"),
        ModuleInfo("two.a", "Conv2d", WEIGHT),
        ModuleInfo("two.b", "Conv2d", WEIGHT),
        ModuleInfo("fc", "Linear", WEIGHT),
    ),
    aliases={},
    head=("fc",),
    blocks=("stem", "one", "two"),
    num_classes=4,
)


def step(module: str, read: int | None, output_bytes: int, tensor: int) -> FlowStep:
    """Reads the step `read`, and keeps its input as `tensor` for its weight's sake."""
    inputs, weight = () if read is None else (read,), f"{module}.weight"
    kept = (Kept(tensor, (), (weight,)),)
    return FlowStep(module, inputs, (weight,), kept, output_bytes=output_bytes, working_bytes=output_bytes)


FLOW = Flow(
    (8, 8),
    (
        step("stem", None, 100, 0),
        step("one.a", 0, 50, 1),
        step("one.b", 1, 50, 2),
        step("two.a", 2, 30, 3),
        step("two.b", 3, 20, 4),
        step("fc", 4, 4, 5),
    ),
    (300, 100, 51, 52, 30, 20),
)
ALL = tuple(TREE.shapes)


def held(*trainable: str, run_again: bool) -> Held:
    needs = flow_needs(FLOW, trainable, ())
    return FlowBytes.of(TREE, FLOW, trainable, needs, 0, run_again=run_again).kept


def test_blocks_keep_what_they_read_and_the_largest_is_there_while_it_runs_again() -> None:
    assert held(*ALL, run_again=False) == Held(300 + 100 + 51 + 52 + 30 + 20, 51)
    # Outside: what stem and fc read. The blocks read the results of stem and one.b; one holds the most.
    assert held(*ALL, run_again=True) == Held(300 + 20 + 100 + 50 + (100 + 51), 51)


def test_a_part_runs_again_as_a_whole_where_a_gradient_passes_and_else_keeps_nothing() -> None:
    found = recomputed(TREE, FLOW, flow_needs(FLOW, ["two.b.weight", "fc.weight"], ()).backward)
    assert found.parts == (frozenset({4}),)
    assert found.outside == {5}
    assert found.inputs == {2}, "what two.a reads, without which two.b could not run again"
    assert held("two.b.weight", "fc.weight", run_again=True) == Held(20 + 30 + 50, 0)


def test_a_single_layer_runs_once() -> None:
    assert parts_that_run_again(TREE) == {"one": ("one",), "two": ("two",)}


def test_a_row_of_layers_is_cut_into_runs() -> None:
    parts = parts_that_run_again(catalog.get("vgg11").tree)
    rows = {name: paths for name, paths in parts.items() if name.startswith("features")}
    # Eight layers with parameters, of which every second one begins a run.
    assert list(rows) == ["features.0-5", "features.6-10", "features.11-15", "features.16-20"]
    assert rows["features.0-5"] == tuple(f"features.{n}" for n in range(6))


def test_of_a_residual_network_each_block_runs_again() -> None:
    assert list(parts_that_run_again(catalog.get("resnet18").tree)) == [
        f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)
    ]
