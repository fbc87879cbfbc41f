"""Checkpoints that a run must not go on from: damaged, of another run, or with frozen parts that moved."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from every_step import stopping_at_step
from safetensors.torch import load_file, save_file
from trainer_runs import MakeSpec, Ran, RunHere, going_on, last_checkpoint, new_spec, run_in_process

from shared.domain.job import StopReason


def flip_a_byte(folder: Path) -> None:
    file = folder / "moving.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(folder: Path) -> None:
    file = folder / "state.pt"
    file.write_bytes(file.read_bytes()[:-10])


def lose_a_file(folder: Path) -> None:
    (folder / "moving.safetensors").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def spoil_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def list_too_little(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] != "state.pt"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_no_state(folder: Path) -> None:
    (folder / "state.pt").write_bytes(b"PK\x03\x04 is how it should begin")
    sum_up(folder)


def write_no_tensors(folder: Path) -> None:
    (folder / "moving.safetensors").write_bytes(b"\xff" * 64)
    sum_up(folder)


def write_another_state(folder: Path) -> None:
    torch.save([1, 2, 3], folder / "state.pt")
    sum_up(folder)


def lose_position(folder: Path) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save({**state, "position": {"epoch": 1}}, folder / "state.pt")
    sum_up(folder)


DAMAGES = [flip_a_byte, cut, lose_a_file, lose_manifest, spoil_manifest, list_too_little]
# Right sums over wrong bytes.
BROKEN = [write_no_state, write_no_tensors, write_another_state, lose_position]


@pytest.fixture(scope="module")
def first_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_in_process(new_spec("custom_network", digits), tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize("damage", DAMAGES + BROKEN, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_refused(
    make_spec: MakeSpec, run_here: RunHere, first_run: Ran, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(last_checkpoint(first_run), tmp_path / "step-000006")
    damage(folder)

    ran = run_here(going_on(make_spec(), str(folder)), "second")

    assert ran.error["code"] == "damaged_checkpoint", ran.error["traceback"]
    assert "step-000006" in ran.error["message"]
    assert not ran.of_type("train")


def test_a_host_without_memory_damages_no_checkpoint(
    make_spec: MakeSpec, run_here: RunHere, first_run: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999 bytes")

    monkeypatch.setattr("worker.training.checkpoints.torch.load", without_memory)

    ran = run_here(going_on(make_spec(), last_checkpoint(first_run)), "second")

    assert ran.error["code"] == "out_of_memory"


def test_a_checkpoint_of_another_base_is_refused(make_spec: MakeSpec, run_here: RunHere) -> None:
    folder = last_checkpoint(run_here(make_spec(freeze=["conv1"]), "first"))

    ran = run_here(make_spec(freeze=["conv1"], resume_from=folder, seed=8), "second")

    assert ran.error["code"] == "checkpoint_mismatch"
    assert "frozen_hash" in ran.error["message"]


def test_a_checkpoint_of_another_schedule_is_refused(make_spec: MakeSpec, run_here: RunHere) -> None:
    settings: dict[str, Any] = {"freeze": ["conv1"], "hyperparameters": {"n_epochs": 2}}
    folder = last_checkpoint(run_here(make_spec(later={1: ["conv2"]}, **settings), "first"))

    ran = run_here(make_spec(later={1: ["fc"]}, resume_from=folder, **settings), "second")

    assert ran.error["code"] == "checkpoint_mismatch"
    assert "plan_hash" in ran.error["message"]


def change(folder: Path, name: str, value: Any) -> None:
    """Puts another content into a checkpoint, as whoever wrote it would have, its manifest included."""
    if name in (moving := load_file(folder / "moving.safetensors")):
        save_file({**moving, name: value}, folder / "moving.safetensors")
    else:
        state = torch.load(folder / "state.pt", weights_only=True)
        torch.save({**state, name: value}, folder / "state.pt")
    sum_up(folder)


def sum_up(folder: Path) -> None:
    """Gives the manifest the sums of what is there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"]:
        content = (folder / entry["name"]).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_a_phase_froze_is_proved_from_its_start_however_often_the_run_is_resumed(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    """conv2 learned, then froze, and moved before the checkpoint: only the phase's start knows of it."""
    spec = make_spec(freeze=["conv1"], later={1: ["conv1", "conv2"]}, hyperparameters={"n_epochs": 2})
    (tmp_path / "stopped").mkdir()
    with stopping_at_step(tmp_path / "stopped", 9, StopReason.PAUSE):
        folder = last_checkpoint(run_here(spec, "stopped"))
    assert run_here(going_on(spec, folder), "honest").result.phases[1].frozen_proof.unchanged
    change(Path(folder), "conv2.bias", load_file(f"{folder}/moving.safetensors")["conv2.bias"] + 1e-6)

    ran = run_here(going_on(spec, folder), "resumed")

    assert ran.error["code"] == "frozen_part_moved"
    assert "conv2.bias" in ran.error["message"]


def test_a_checkpoint_with_another_layout_is_refused_in_words(make_spec: MakeSpec, run_here: RunHere) -> None:
    spec = make_spec()
    folder = last_checkpoint(run_here(spec, "first"))
    change(Path(folder), "layout", 1)

    ran = run_here(going_on(spec, folder), "second")

    assert ran.error["code"] == "checkpoint_of_another_version"
    assert "another version of Thaw" in ran.error["message"]
