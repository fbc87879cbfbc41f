"""What stands below a plan's tree in the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from thaw.cli.plan_words import binary, remarks

GIB = 2**30
PHASE = {
    "from_epoch": 0,
    "weights_bytes": 2 * GIB,
    "gradients_bytes": 4 * 1024,
    "optimizer_bytes": 8 * 1024,
    "autocast_bytes": 0,
    "activations_bytes": 300 * 2**20,
    "input_bytes": 2**20,
    "transient_bytes": 0,
    "context_bytes": 500 * 2**20,
    "total_bytes": 3 * GIB,
}
MEMORY = {
    "device": "cuda",
    "precision": "bf16 or fp16",
    "batch_size_per_device": 32,
    "total_bytes": 3 * GIB,
    "phases": [PHASE],
    "method": "an estimate",
    "left_out": "fragmentation",
    "reason": None,
}
PREFIX = {
    "modules": ["conv1", "bn1", "layer1"],
    "until": "layer2",
    "n_parameters": 157_504,
    "share_of_forward": 0.624,
    "output_bytes_per_sample": 802_816,
    "phases": [],
    "note": None,
}
NORMS = {"from_epoch": 0, "n_training": 3, "n_still": 17, "n_exempt": 0}


def said(width: int = 400, n_phases: int = 1, **parts: Any) -> list[str]:
    plan = {"phases": [{"from_epoch": 2 * number} for number in range(n_phases)], **parts}
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False)
    for remark in remarks(plan):
        console.print(remark)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    return [line.rstrip() for line in text.splitlines()]


def fit(**changes: Any) -> dict[str, Any]:
    return {
        "accelerator": "NVIDIA T4",
        "memory_bytes": 16 * GIB,
        "nodes": 1,
        "fits": True,
        "needed_bytes": 3 * GIB,
        "largest_batch_size": 1_024,
        "reason": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (GIB, "1.0 GiB"), (80 * GIB, "80.0 GiB")],
)
def test_memory_is_told_in_binary_units(n_bytes: int | None, words: str) -> None:
    assert binary(n_bytes) == words


def test_memory_is_a_table_of_its_parts_without_those_of_nothing() -> None:
    lines = said(memory=MEMORY)
    title, *rows = [line for line in lines if line]
    assert title == "memory on each GPU, estimated for a batch of 32 on each in bf16 or fp16"
    assert [" ".join(row.split()) for row in rows] == [
        "weights 2.0 GiB",
        "gradients 4.0 KiB",
        "optimizer state 8.0 KiB",
        "activations 300.0 MiB",
        "input 1.0 MiB",
        "the process itself 500.0 MiB",
        "total 3.0 GiB",
    ]


def test_each_phase_has_a_column() -> None:
    later = {**PHASE, "from_epoch": 2, "gradients_bytes": 2 * GIB, "total_bytes": 9 * GIB}
    lines = said(n_phases=2, memory={**MEMORY, "phases": [PHASE, later]})
    assert any(line.split() == ["epochs", "1-2", "from", "epoch", "3", "on"] for line in lines)
    assert any(line.split() == ["gradients", "4.0", "KiB", "2.0", "GiB"] for line in lines)


def test_of_many_phases_the_one_that_needs_the_most_is_shown() -> None:
    phases = [{**PHASE, "from_epoch": 2 * n, "total_bytes": (9 if n == 3 else n) * GIB} for n in range(6)]
    lines = said(n_phases=6, memory={**MEMORY, "phases": phases})
    assert any(line.strip() == "epochs 7-8" for line in lines)
    assert any(line.split() == ["total", "9.0", "GiB"] for line in lines)


def test_what_is_not_known_is_a_dash_with_the_reason() -> None:
    unknown = {**PHASE, "activations_bytes": None, "transient_bytes": None, "total_bytes": None}
    lines = said(memory={**MEMORY, "phases": [unknown], "reason": "no picture size"})
    assert any(line.split() == ["total", "-"] for line in lines)
    assert "no total: no picture size" in lines


def test_each_kind_of_node_answers_in_words() -> None:
    lines = said(
        fits=[
            fit(nodes=3),
            fit(fits=False, reason="needs 9.1 GiB of 8.0 GiB on each device; batch_size 24 would fit"),
            fit(accelerator="cpu", fits=None, reason="the memory of these nodes is not known"),
        ]
    )
    assert lines[1:] == [
        "fits         NVIDIA T4 (3 nodes): needs 3.0 GiB of 16.0 GiB on each device; "
        "at most batch_size 1,024",
        "does not fit NVIDIA T4 (1 node): needs 9.1 GiB of 8.0 GiB on each device; batch_size 24 would fit",
        "not known    cpu (1 node): the memory of these nodes is not known",
    ]
    assert said(fits=[])[1:] == ["whether it fits is not known: there is no node yet"]


def test_a_warning_stands_out_in_words() -> None:
    assert "warning: this job fits no node" in said(warnings=["this job fits no node"])


def test_the_fixed_prefix_is_a_sentence() -> None:
    (line,) = said(prefix=PREFIX)
    assert line == (
        "fixed prefix: conv1, bn1, layer1, up to layer2; it computes the same for a picture in every epoch, "
        "so that its result (802.8 KB a picture) could be computed once: 62% of what a forward puts out, "
        "157,504 parameters"
    )
    assert said(prefix={**PREFIX, "note": "augment 'flip' shows other pictures"})[0].endswith(
        "parameters; augment 'flip' shows other pictures"
    )
    long = said(prefix={**PREFIX, "modules": [f"block{n}" for n in range(9)]})[0]
    assert "block5 and 3 more, up to layer2" in long
    (none,) = said(prefix={**PREFIX, "modules": [], "until": "conv1"})
    assert none == "fixed prefix: none; conv1 comes first, and what it computes changes"


def test_normalisation_is_told_once_or_for_each_phase() -> None:
    (once,) = said(n_phases=2, batch_norm={"policy": "freeze", "phases": [NORMS, NORMS]})
    assert once == (
        "batch_norm freeze: of 20 normalisation layers 3 train, "
        "17 are still, so that their statistics do not move"
    )
    thawed = {**NORMS, "n_training": 20, "n_still": 0}
    assert said(n_phases=2, batch_norm={"policy": "freeze", "phases": [NORMS, thawed]})[2] == (
        "  from epoch 3 on: of 20 normalisation layers 20 train"
    )
    exempt = {**NORMS, "n_still": 0, "n_exempt": 17}
    assert "17 are frozen, but go on counting" in said(batch_norm={"policy": "train", "phases": [exempt]})[0]
    none = {**NORMS, "n_training": 0, "n_still": 0}
    assert said(batch_norm={"policy": "freeze", "phases": [none]}) == []


def test_what_is_left_behind_is_weighed() -> None:
    checkpoint = {"total_bytes": 3_000_000, "best_bytes": 1_000_000}
    artifacts = {"model_bytes": 45_000_000, "trainable_bytes": 20_696}
    assert said(checkpoint=checkpoint, artifacts=artifacts)[1:] == [
        "a checkpoint weighs up to 3.0 MB with the best epoch beside the last",
        "the result: model.safetensors 45.0 MB, trainable.safetensors 20.7 KB",
    ]


def test_a_plan_of_a_server_without_figures_says_nothing() -> None:
    assert said() == []


def test_everything_stays_within_a_terminal_of_80_columns() -> None:
    lines = said(
        80,
        n_phases=4,
        memory={**MEMORY, "phases": [{**PHASE, "from_epoch": 2 * number} for number in range(4)]},
        fits=[fit(reason="needs 9.1 GiB of 8.0 GiB on each device; batch_size 24 would fit", fits=False)],
        prefix=PREFIX,
        batch_norm={"policy": "freeze", "phases": [NORMS] * 4},
    )
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
