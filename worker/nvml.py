"""GPUs as NVML tells of them, the library of NVIDIA's driver: what there is, and how each one is.

NVML shows every GPU that the host or the container has, whatever CUDA_VISIBLE_DEVICES says, and starts no
context on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pynvml

_RECOVERY = {
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: "a reset of it",
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "a reboot of its host",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: "an end of all work on it and on those linked to it",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: "a reset of it, after all work has left",
}
# What is not told of this kind of GPU, by this driver, or to this process.
_NOT_TOLD = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
    pynvml.NVML_ERROR_DEPRECATED,
    pynvml.NVML_ERROR_NO_DATA,
)
_NO_DRIVER = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
_MOST_EVENTS = 100


class NvmlFailed(RuntimeError):
    """NVML is there and does not work; the message is its own."""


@dataclass(frozen=True)
class Gpu:
    """`memory_bytes` is all that it has, None where that is not told; `is_parted`: whether MIG is on."""

    uuid: str
    name: str
    memory_bytes: int | None
    is_parted: bool


@dataclass(frozen=True)
class Found:
    """The GPUs that answer, in the order of the PCI bus, and why the others do not."""

    gpus: list[Gpu]
    silent: list[str]


@dataclass(frozen=True)
class Look:
    """One GPU at one moment; what its kind does not tell is as on a healthy one.

    `lost`: why it does not answer. `wants`: what the driver says that it needs. Errors of memory that could
    not be corrected are counted from its last reset on. `xids`: critical errors since the look before.
    """

    lost: str | None = None
    wants: str | None = None
    uncorrected_errors: int = 0
    remapping_pending: bool = False
    remapping_failed: bool = False
    retirement_pending: bool = False
    xids: tuple[int, ...] = ()


class Nvml:
    """The library, opened when it is first asked. `library` is the module pynvml."""

    def __init__(self, library: Any = pynvml) -> None:
        self._library = library
        self._is_open = False
        self._events: dict[str, Any] = {}

    def gpus(self) -> Found:
        """The GPUs of this host; none where there is no driver.

        Raises NvmlFailed where there is one and it does not work.
        """
        gpus, silent = [], []
        try:
            count = self._library.nvmlDeviceGetCount() if self._open() else 0
        except pynvml.NVMLError as error:
            raise NvmlFailed(str(error)) from error
        for index in range(count):
            try:
                handle = self._library.nvmlDeviceGetHandleByIndex(index)
                gpus.append((self._bus(handle), self._describe(handle)))
            except pynvml.NVMLError as error:
                silent.append(f"GPU {index}: {error}")
        return Found([gpu for _, gpu in sorted(gpus, key=itemgetter(0))], silent)

    def look(self, uuid: str) -> Look:
        """How the GPU is now."""
        try:
            self._open()
            handle = self._library.nvmlDeviceGetHandleByUUID(uuid)
            # Asked so that the device itself has to answer.
            self._ask(self._library.nvmlDeviceGetMemoryInfo, handle)
            _, _, pending, failed = self._ask(self._library.nvmlDeviceGetRemappedRows, handle) or (0, 0, 0, 0)
            retiring = self._ask(self._library.nvmlDeviceGetRetiredPagesPendingStatus, handle)
            return Look(
                wants=self._recovery(handle),
                uncorrected_errors=self._uncorrected_errors(handle),
                remapping_pending=bool(pending),
                remapping_failed=bool(failed),
                retirement_pending=bool(retiring),
                xids=self._xids(uuid, handle),
            )
        except pynvml.NVMLError as error:
            return Look(lost=str(error))

    def _open(self) -> bool:
        """Whether there is a driver to ask."""
        if not self._is_open:
            try:
                self._library.nvmlInit()
            except pynvml.NVMLError as error:
                if error.value in _NO_DRIVER:
                    return False
                raise
            self._is_open = True
        return True

    def _bus(self, handle: Any) -> tuple[int, int, int]:
        pci = self._library.nvmlDeviceGetPciInfo(handle)
        return pci.domain, pci.bus, pci.device

    def _describe(self, handle: Any) -> Gpu:
        memory = self._ask(self._library.nvmlDeviceGetMemoryInfo, handle)
        mode, _ = self._ask(self._library.nvmlDeviceGetMigMode, handle) or (0, 0)
        return Gpu(
            uuid=self._library.nvmlDeviceGetUUID(handle),
            name=self._library.nvmlDeviceGetName(handle),
            memory_bytes=int(memory.total) if memory else None,
            is_parted=mode == pynvml.NVML_DEVICE_MIG_ENABLE,
        )

    def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """The answer, None where it is not told. Raises NVMLError for a GPU that is in trouble."""
        try:
            return question(*args)
        except pynvml.NVMLError as error:
            if error.value in _NOT_TOLD:
                return None
            raise

    def _recovery(self, handle: Any) -> str | None:
        field = pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
        told = self._ask(self._library.nvmlDeviceGetFieldValues, handle, [field])
        if not told or told[0].nvmlReturn != pynvml.NVML_SUCCESS:
            return None
        action = int(told[0].value.uiVal)
        if action == pynvml.NVML_GPU_RECOVERY_ACTION_NONE:
            return None
        return _RECOVERY.get(action, f"the recovery action {action}")

    def _uncorrected_errors(self, handle: Any) -> int:
        """Which parts are counted apart differs by the kind of GPU."""
        kind, since = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        counter = self._library.nvmlDeviceGetMemoryErrorCounter
        parts = range(pynvml.NVML_MEMORY_LOCATION_COUNT)
        return sum(self._ask(counter, handle, kind, since, part) or 0 for part in parts)

    def _xids(self, uuid: str, handle: Any) -> tuple[int, ...]:
        if uuid not in self._events:
            self._events[uuid] = self._ask(self._listen, handle)
        found: list[int] = []
        while self._events[uuid] is not None and len(found) < _MOST_EVENTS:
            try:
                event = self._library.nvmlEventSetWait(self._events[uuid], 0)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_TIMEOUT:
                    break
                raise
            found.append(int(event.eventData))
        return tuple(found)

    def _listen(self, handle: Any) -> Any:
        """A set of events of this GPU alone, as one of a GPU that is lost does not say whose it is."""
        events = self._library.nvmlEventSetCreate()
        self._library.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
        return events
