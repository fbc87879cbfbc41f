"""A stand-in for the module pynvml: GPUs that fall ill and get well, as NVML would tell of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 2**30


@dataclass(eq=False)
class FakeGpu:
    """What is None is not supported by this kind of GPU. `lost`: an error of NVML for every question."""

    uuid: str
    name: str = "NVIDIA A100-SXM4-80GB"
    memory: int | None = 80 * GIB
    bus: int = 0
    mig: int | None = 0
    uncorrected: dict[int, int] = field(default_factory=lambda: {pynvml.NVML_MEMORY_LOCATION_DRAM: 0})
    remapped: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    retiring: int | None = None
    recovery: int | None = pynvml.NVML_GPU_RECOVERY_ACTION_NONE
    xids: list[int] | None = field(default_factory=list)
    lost: int | None = None


def _of_a_gpu(question: Callable[..., Any]) -> Callable[..., Any]:
    """A GPU that is lost answers nothing."""

    @wraps(question)
    def answer(self: FakeNvml, gpu: FakeGpu, *args: Any) -> Any:
        if gpu.lost is not None:
            raise pynvml.NVMLError(gpu.lost)
        return question(self, gpu, *args)

    return answer


def _supported(value: Any) -> Any:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


class FakeNvml:
    """Its handles are the GPUs themselves. `error`: what opening it fails with."""

    def __init__(self, *gpus: FakeGpu, error: int | None = None) -> None:
        self.all = list(gpus)
        self.error = error

    def nvmlInit(self) -> None:
        if self.error is not None:
            raise pynvml.NVMLError(self.error)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.all)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._unless_lost(self.all[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for gpu in self.all:
            if gpu.uuid == uuid:
                return self._unless_lost(gpu)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    @_of_a_gpu
    def _unless_lost(self, gpu: FakeGpu) -> FakeGpu:
        return gpu

    @_of_a_gpu
    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(domain=0, bus=gpu.bus, device=0)

    @_of_a_gpu
    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    @_of_a_gpu
    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return gpu.name

    @_of_a_gpu
    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(total=_supported(gpu.memory))

    @_of_a_gpu
    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        return [_supported(gpu.mig), gpu.mig or 0]

    @_of_a_gpu
    def nvmlDeviceGetRemappedRows(self, gpu: FakeGpu) -> Any:
        return _supported(gpu.remapped)

    @_of_a_gpu
    def nvmlDeviceGetRetiredPagesPendingStatus(self, gpu: FakeGpu) -> Any:
        return _supported(gpu.retiring)

    @_of_a_gpu
    def nvmlDeviceGetMemoryErrorCounter(self, gpu: FakeGpu, kind: int, since: int, part: int) -> Any:
        assert (kind, since) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        return _supported(gpu.uncorrected.get(part))

    @_of_a_gpu
    def nvmlDeviceGetFieldValues(self, gpu: FakeGpu, fields: list[int]) -> list[Any]:
        assert fields == [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        told = pynvml.NVML_ERROR_NOT_SUPPORTED if gpu.recovery is None else pynvml.NVML_SUCCESS
        return [SimpleNamespace(nvmlReturn=told, value=SimpleNamespace(uiVal=gpu.recovery or 0))]

    def nvmlEventSetCreate(self) -> list[FakeGpu]:
        return []

    @_of_a_gpu
    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, types: int, events: list[FakeGpu]) -> None:
        assert types == pynvml.nvmlEventTypeXidCriticalError
        _supported(gpu.xids)
        events.append(gpu)

    def nvmlEventSetWait(self, events: list[FakeGpu], timeout_ms: int) -> Any:
        assert timeout_ms == 0, "a look waits for nothing"
        for gpu in events:
            if gpu.xids:
                return SimpleNamespace(eventData=gpu.xids.pop(0))
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
