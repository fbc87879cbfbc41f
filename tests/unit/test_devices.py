"""What a node computes on, as NVML tells it."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest
from fake_nvml import GIB, FakeGpu, FakeNvml

from worker import devices
from worker.devices import Devices, UnfitDevices, devices_of_worker, find_devices
from worker.nvml import Nvml

A100 = "NVIDIA A100-SXM4-80GB"


def found(*gpus: FakeGpu, visible: str | None = None, error: int | None = None, driver: Path) -> Devices:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return find_devices(None, Nvml(FakeNvml(*gpus, error=error)), environment, driver)


def three(**of_the_last: object) -> list[FakeGpu]:
    """GPUs in another order than that of their bus."""
    return [FakeGpu("GPU-cc", bus=9), FakeGpu("GPU-aa", bus=1), FakeGpu("GPU-bb", bus=5, **of_the_last)]


def test_each_gpu_is_a_slot_in_the_order_of_the_bus(tmp_path: Path) -> None:
    devices = found(*three(), driver=tmp_path)
    assert devices == Devices(A100, 80 * GIB, 3, ("GPU-aa", "GPU-bb", "GPU-cc"))


def test_a_given_number_of_slots_means_cpu_and_asks_nothing(tmp_path: Path) -> None:
    broken = Nvml(FakeNvml(error=pynvml.NVML_ERROR_UNKNOWN))
    assert find_devices(3, broken, {}, tmp_path) == Devices("cpu", None, 3)


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_host_without_a_driver_is_a_cpu_node(error: int, tmp_path: Path) -> None:
    assert found(error=error, driver=tmp_path) == Devices("cpu", None, 1)


def test_gpus_that_nobody_can_ask_about_are_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(UnfitDevices, match="RM has detected an NVML/RM version mismatch"):
        found(error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, driver=tmp_path)
    (tmp_path / "0000:65:00.0").mkdir()
    (tmp_path / "0000:65:00.0" / "information").write_text("Model: NVIDIA H100\n")
    with pytest.raises(UnfitDevices, match="NVIDIA_DRIVER_CAPABILITIES must have 'utility'"):
        found(error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, driver=tmp_path)


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("2,0", ("GPU-cc", "GPU-aa")),
        ("GPU-bb", ("GPU-bb",)),
        (" GPU-c , GPU-a", ("GPU-cc", "GPU-aa")),
    ],
)
def test_the_operator_may_name_some_of_them(visible: str, uuids: tuple[str, ...], tmp_path: Path) -> None:
    assert found(*three(), visible=visible, driver=tmp_path).uuids == uuids


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        ("0,3", "names '3', which is no GPU of this host; it has: 0 (GPU-aa), 1 (GPU-bb)"),
        ("GPU-", "names 'GPU-', which is several GPUs"),
        ("0,GPU-aa", "names a GPU twice"),
    ],
)
def test_a_name_that_cuda_would_leave_out_in_silence_is_refused(
    visible: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UnfitDevices) as no:
        found(*three(), visible=visible, driver=tmp_path)
    assert words in str(no.value)


def test_gpus_of_two_kinds_are_refused_by_name_and_one_kind_of_them_is_not(tmp_path: Path) -> None:
    gpus = three(name="NVIDIA H100")
    with pytest.raises(UnfitDevices, match=f"{A100}, NVIDIA H100"):
        found(*gpus, driver=tmp_path)
    assert found(*gpus, visible="1", driver=tmp_path).accelerator == "NVIDIA H100"


def test_parts_of_a_gpu_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitDevices, match=r"A100-SXM4-80GB \(GPU-bb\): MIG is on"):
        found(*three(mig=1), driver=tmp_path)
    assert found(*three(mig=1), visible="0", driver=tmp_path).n_slots == 1


def test_memory_is_the_least_that_is_told(tmp_path: Path) -> None:
    assert found(FakeGpu("GPU-a", memory=None, mig=None), driver=tmp_path).memory_bytes is None
    assert found(*three(memory=40 * GIB), driver=tmp_path).memory_bytes == 40 * GIB


def test_a_gpu_that_does_not_answer_at_the_start_is_left_out(tmp_path: Path) -> None:
    lost = three(lost=pynvml.NVML_ERROR_GPU_IS_LOST)
    assert found(*lost, driver=tmp_path).uuids == ("GPU-aa", "GPU-cc")
    with pytest.raises(UnfitDevices, match="name the GPUs by their UUIDs"):
        found(*lost, visible="0,1", driver=tmp_path)
    with pytest.raises(UnfitDevices, match="no GPU of this host answers: GPU 0: GPU is lost"):
        found(lost[-1], driver=tmp_path)


def test_a_gpu_that_is_lost_later_gives_its_slots_number_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = three()
    library = FakeNvml(*gpus)
    monkeypatch.setattr(devices, "Nvml", lambda: Nvml(library))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices_of_worker.cache_clear()
    try:
        first = devices_of_worker(None)
        gpus[1].lost = pynvml.NVML_ERROR_GPU_IS_LOST
        assert devices_of_worker(None).uuids == first.uuids == ("GPU-aa", "GPU-bb", "GPU-cc")
    finally:
        devices_of_worker.cache_clear()
