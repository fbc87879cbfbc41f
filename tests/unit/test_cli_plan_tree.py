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


def test_of_a_later_phase_only_what_changes_is_drawn() -> None:
    first = plan()["phases"][0]
    second = {
        **first,
        "from_epoch": 3,
        "trainable": [*first["trainable"], "layer1.0.bn.weight"],
        "frozen": ["conv1.weight", "layer1.0.conv.weight"],
        "still": ["conv1", "layer1.0.conv"],
        "lr_scale": {"layer1.1.conv.weight": 0.5},
        "n_trainable": 1_600,
        "n_frozen": 8_400,
    }
    lines = drawn(plan(phases=[first, second]))
    assert lines[0] == "epochs 1-3"
    assert lines[lines.index("from epoch 4 on (at_epoch 3)") :] == [
        "from epoch 4 on (at_epoch 3)",
        "tiny: 1,600 of 10,000 parameters train (16.00%), 8,400 are frozen",
        "├── both    layer1  (2 of 3 train)",
        "│   ├── both    0  (1 of 2 train)",
        "│   │   └── TRAINS  bn  (1 tensor, was frozen)",
        "│   └── TRAINS  1  (1 tensor, learning rate x0.5, was x0.1)",
        "└── all else as before",
    ]


def test_a_part_that_freezes_again_says_that_it_trained() -> None:
    first = plan()["phases"][0]
    second = {**first, "from_epoch": 1, "frozen": [*first["frozen"], "layer1.1.conv.weight"]}
    second["trainable"] = ["fc.weight", "fc.bias"]
    lines = drawn(plan(phases=[first, second]))
    assert lines[0] == "epoch 1"
    assert "│   └── frozen  1  (1 tensor, was training)" in lines
    # What has changed below them stands there in full, what has not is left out.
    assert [line for line in lines[lines.index("from epoch 2 on (at_epoch 1)") :] if "fc" in line] == []


def test_shared_tensors_are_named() -> None:
    lines = drawn(plan(aliases={"out.weight": "fc.weight"}))
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


def test_a_networks_own_steps_stand_below_what_trains() -> None:
    first = plan()["phases"][0]
    steps = [
        {"name": "judge", "loss": "judge_loss", "trainable": [], "n_trainable": 0},
        {"name": "make", "loss": "make_loss", "trainable": ["fc.weight", "fc.bias"], "n_trainable": 1200},
    ]
    assert drawn(plan(phases=[{**first, "steps": steps}]))[-3:] == [
        "└── the model's own training steps, each once on every batch",
        "    ├── 1. judge: left out, as all that it would train is frozen",
        "    └── 2. make: trains 1,200 parameters (2 tensors) by make_loss",
    ]
