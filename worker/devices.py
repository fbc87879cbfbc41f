"""What this node computes on, found without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog

from worker.nvml import Found, Gpu, Nvml, NvmlFailed

_DRIVER = Path("/proc/driver/nvidia/gpus")


class UnfitDevices(RuntimeError):
    """GPUs that cannot be the slots of a node; the message says why, and what to do."""


@dataclass(frozen=True)
class Devices:
    """`accelerator` is "cpu" or the GPUs' name; `memory_bytes` is one GPU's, None where it is not known.

    `uuids`: of the GPUs, in the order of the slots; empty on a CPU node.
    """

    accelerator: str
    memory_bytes: int | None
    n_slots: int
    uuids: tuple[str, ...] = ()


@cache
def devices_of_worker(cpu_slots: int | None) -> Devices:
    """What `find_devices` finds, once in a worker's life, whose pool processes are forked later.

    A GPU that is gone since then must not give its slot's number to another one.
    """
    return find_devices(cpu_slots, Nvml(), os.environ)


def find_devices(
    cpu_slots: int | None, nvml: Nvml, environment: Mapping[str, str], driver: Path = _DRIVER
) -> Devices:
    """CPU slots where their number was given, else a slot for each NVIDIA GPU, else one CPU slot.

    Of the GPUs those that CUDA_VISIBLE_DEVICES names, in its order, else all in the order of the PCI bus.
    `driver`: where the kernel's driver lists its GPUs. Raises UnfitDevices.
    """
    if cpu_slots is not None:
        return Devices("cpu", None, cpu_slots)
    gpus = _visible(_ask(nvml, driver), environment.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        return Devices("cpu", None, 1)
    _refuse_parted(gpus)
    names = sorted({gpu.name for gpu in gpus})
    if len(names) > 1:
        raise UnfitDevices(
            f"this host has GPUs of different kinds ({', '.join(names)}); a node must have one kind:"
            " name its GPUs in CUDA_VISIBLE_DEVICES, and start a worker for each kind"
        )
    known = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes is not None]
    return Devices(names[0], min(known, default=None), len(gpus), tuple(gpu.uuid for gpu in gpus))


def _ask(nvml: Nvml, driver: Path) -> Found:
    try:
        found = nvml.gpus()
    except NvmlFailed as error:
        raise UnfitDevices(
            f"NVML, which tells of this host's GPUs, failed: {error}. nvidia-smi should say the same;"
            " THAW_SLOTS makes this a CPU node"
        ) from error
    if found.silent and not found.gpus:
        raise UnfitDevices(f"no GPU of this host answers: {'; '.join(found.silent)}")
    if not found.gpus and any(driver.glob("*/information")):
        raise UnfitDevices(
            f"the driver has GPUs ({driver}), and its library NVML cannot be used (libnvidia-ml.so.1): in a"
            " container NVIDIA_DRIVER_CAPABILITIES must have 'utility'; THAW_SLOTS makes this a CPU node"
        )
    return found


def _visible(found: Found, named: str | None) -> list[Gpu]:
    """The GPUs that are named; numbers count along the PCI bus."""
    names = None if named is None else [name.strip() for name in named.split(",") if name.strip()]
    if found.silent:
        why = "; ".join(found.silent)
        if any(name.isdecimal() for name in names or ()):
            raise UnfitDevices(
                f"a GPU of this host does not answer ({why}), so that the numbers in CUDA_VISIBLE_DEVICES"
                " may mean others than before: name the GPUs by their UUIDs"
            )
        structlog.stdlib.get_logger(__name__).error("gpu_left_out", reason=why)
    if names is None:
        return found.gpus
    chosen = [_named(found.gpus, name) for name in names]
    if len(set(chosen)) < len(chosen):
        raise UnfitDevices(f"CUDA_VISIBLE_DEVICES names a GPU twice: {named}")
    return chosen


def _named(gpus: Sequence[Gpu], name: str) -> Gpu:
    """CUDA itself leaves out what it does not know, and all that comes after, without a word."""
    if name.isdecimal():
        found = list(gpus[int(name) : int(name) + 1])
    else:
        found = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
    if len(found) != 1:
        having = ", ".join(f"{number} ({gpu.uuid})" for number, gpu in enumerate(gpus)) or "none"
        many = "several GPUs" if found else "no GPU"
        raise UnfitDevices(
            f"CUDA_VISIBLE_DEVICES names {name!r}, which is {many} of this host; it has: {having}"
        )
    return found[0]


def _refuse_parted(gpus: Sequence[Gpu]) -> None:
    parted = [gpu for gpu in gpus if gpu.is_parted]
    if parted:
        named = ", ".join(f"{gpu.name} ({gpu.uuid})" for gpu in parted)
        raise UnfitDevices(
            f"{named}: MIG is on. A process can use one part of a GPU alone, so that parts cannot be the"
            " slots of one node: turn MIG off (nvidia-smi -mig 0), or leave these GPUs out of"
            " CUDA_VISIBLE_DEVICES"
        )
