"""What a node computes on, as nvidia-smi tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.devices import Devices, MixedDevices, find_devices

MIB = 1024 * 1024


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on the search path, which prints what is written into `told`."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/told'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "told"


def test_each_gpu_is_a_slot(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n")
    assert find_devices(None) == Devices("NVIDIA H100 80GB HBM3", 81559 * MIB, 2)


def test_a_given_number_of_slots_means_cpu(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("NVIDIA H100 80GB HBM3, 81559\n")
    assert find_devices(3) == Devices("cpu", None, 3)


def test_gpus_of_two_kinds_are_refused_by_name(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("NVIDIA A100, 40960\nNVIDIA H100, 81559\n")
    with pytest.raises(MixedDevices, match="NVIDIA A100, NVIDIA H100"):
        find_devices(None)


def test_memory_that_the_driver_does_not_tell_is_unknown(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("NVIDIA GB10, [N/A]\n")
    assert find_devices(None) == Devices("NVIDIA GB10", None, 1)
