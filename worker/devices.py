"""What this node computes on, found without torch."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MIB = 1024 * 1024
_QUERY_LIMIT_S = 60.0
_DRIVER = Path("/proc/driver/nvidia/gpus")


class MixedDevices(RuntimeError):
    """GPUs of different kinds in one node, of which a job could not say which it gets."""


@dataclass(frozen=True)
class Devices:
    """`accelerator` is "cpu" or the GPUs' name; `memory_bytes` is one GPU's, None where it is not known."""

    accelerator: str
    memory_bytes: int | None
    n_slots: int


def find_devices(cpu_slots: int | None) -> Devices:
    """CPU slots where their number was given, else a slot for each NVIDIA GPU, else one CPU slot.

    Raises MixedDevices when the GPUs are of different kinds.
    """
    if cpu_slots is not None:
        return Devices("cpu", None, cpu_slots)
    gpus = _ask_nvidia_smi() or _ask_driver()
    if not gpus:
        return Devices("cpu", None, 1)
    names = sorted({name for name, _ in gpus})
    if len(names) > 1:
        raise MixedDevices(
            f"this host has GPUs of different kinds ({', '.join(names)}); a node must have one kind:"
            " show it only those, for example through the container's devices"
        )
    known = [memory for _, memory in gpus if memory is not None]
    return Devices(names[0], min(known, default=None), len(gpus))


def _ask_nvidia_smi() -> list[tuple[str, int | None]]:
    """Name and memory in bytes of each GPU; empty where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run(  # noqa: S603 - our own words
        [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=_QUERY_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [(name, int(memory) * _MIB if memory.isdigit() else None) for name, memory in rows]


def _ask_driver() -> list[tuple[str, int | None]]:
    """The same from the kernel driver's files, which tell no memory."""
    lines = [
        line
        for information in sorted(_DRIVER.glob("*/information"))
        for line in information.read_text(encoding="utf-8").splitlines()
    ]
    return [(line.partition(":")[2].strip(), None) for line in lines if line.startswith("Model:")]
