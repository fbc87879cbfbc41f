"""A plan in the terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from thaw.cli.plan_tree import drawn_plan

ORDER = [
    "conv1.weight",
    "layer1.0.conv.weight",
    "layer1.0.bn.weight",
    "layer1.1.conv.weight",
    "fc.weight",
    "fc.bias",
]


def plan(**changes: Any) -> dict[str, Any]:
    phase = {
        "from_epoch": 0,
        "trainable": ["layer1.1.conv.weight", "fc.weight", "fc.bias"],
        "frozen": ["conv1.weight", "layer1.0.conv.weight", "layer1.0.bn.weight"],
        "still": ["conv1", "layer1.0", "layer1.0.conv", "layer1.0.bn"],
        "lr_scale": {"layer1.1.conv.weight": 0.1},
        "n_trainable": 1500,
        "n_frozen": 8500,
    }
    return {"model": "tiny", "phases": [phase], "aliases": {}, **changes}


def drawn(plan: dict[str, Any], order: list[str] = ORDER) -> list[str]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(drawn_plan(plan, order))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    return [line.rstrip() for line in text.splitlines()]


def test_each_part_says_in_words_whether_it_is_frozen() -> None:
    assert drawn(plan()) == [
        "tiny: 1,500 of 10,000 parameters train (15.00%), 8,500 are frozen",
        "├── frozen  conv1  (1 tensor, still)",
        "├── both    layer1  (1 of 3 train)",
        "│   ├── frozen  0  (2 tensors, still)",
        "│   └── TRAINS  1  (1 tensor, learning rate x0.1)",
        "└── TRAINS  fc  (2 tensors)",
    ]


def test_without_the_networks_order_the_frozen_part_comes_first() -> None:
    names = [line.split()[2] for line in drawn(plan(), order=[]) if line.startswith(("├── ", "└── "))]
    assert names == ["conv1", "layer1", "fc"]


def test_phases_and_shared_tensors_are_named() -> None:
    first = plan()["phases"][0]
    second = {
        **first,
        "from_epoch": 3,
        "trainable": ORDER,
        "frozen": [],
        "still": [],
        "n_trainable": 10_000,
        "n_frozen": 0,
    }
    lines = drawn(plan(phases=[first, second], aliases={"out.weight": "fc.weight"}))
    assert lines[0] == "from epoch 1"
    assert lines[lines.index("from epoch 4 (at_epoch: 3)") + 1].startswith(
        "tiny: 10,000 of 10,000 parameters train (100.00%)"
    )
    assert lines[-1] == "out.weight is the same tensor as fc.weight"


def test_a_part_that_learns_at_several_rates_says_between_which() -> None:
    first = plan()["phases"][0]
    trains = {**first, "trainable": ORDER, "frozen": [], "still": [], "n_trainable": 10_000, "n_frozen": 0}
    scales = {"conv1.weight": 0.125, "layer1.0.conv.weight": 0.25, "layer1.0.bn.weight": 0.25}
    lines = drawn(plan(phases=[{**trains, "lr_scale": scales}]))
    assert lines[1:] == [
        "├── TRAINS  conv1  (1 tensor, learning rate x0.125)",
        "├── TRAINS  layer1  (3 tensors, learning rate x0.25 to x1)",
        "└── TRAINS  fc  (2 tensors)",
    ]
