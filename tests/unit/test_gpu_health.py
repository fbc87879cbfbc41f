"""Whether a GPU is fit for work: the contract of NVML over a stand-in and the real one, and what follows."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest
from fake_nvml import FakeGpu, FakeNvml

from worker import gpu_health
from worker.gpu_health import GpuWatch, ailment
from worker.nvml import Look, Nvml, NvmlFailed

ACTIONS = {
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: "a reset of it",
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "a reboot of its host",
    pynvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: "the recovery action 6",
}


@pytest.fixture(params=["stand-in", "real"])
def nvml(request: pytest.FixtureRequest) -> Nvml:
    if request.param == "stand-in":
        return Nvml(FakeNvml(FakeGpu("GPU-1", bus=2), FakeGpu("GPU-0", bus=1)))
    real = Nvml()
    try:
        gpus = real.gpus().gpus
    except NvmlFailed as error:
        pytest.skip(f"NVML does not work here: {error}")
    if not gpus:
        pytest.skip("no NVIDIA driver with a GPU here")
    return real


class TestContract:
    def test_each_gpu_is_told_with_what_placement_needs(self, nvml: Nvml) -> None:
        found = nvml.gpus()
        assert found == nvml.gpus(), "asking again changes nothing"
        assert len({gpu.uuid for gpu in found.gpus}) == len(found.gpus) > 0
        for gpu in found.gpus:
            assert gpu.uuid.startswith("GPU-")
            assert gpu.name
            assert gpu.memory_bytes is None or gpu.memory_bytes > 2**30

    def test_a_look_is_made_of_plain_values_and_again_and_again(self, nvml: Nvml) -> None:
        for gpu in nvml.gpus().gpus:
            for look in (nvml.look(gpu.uuid), nvml.look(gpu.uuid)):
                assert look.lost is None
                assert isinstance(look.uncorrected_errors, int)
                assert all(isinstance(xid, int) for xid in look.xids)
                assert {type(look.remapping_pending), type(look.retirement_pending)} == {bool}

    def test_one_that_is_not_there_is_lost_in_words(self, nvml: Nvml) -> None:
        nvml.gpus()
        assert nvml.look("GPU-00000000-0000-0000-0000-000000000000").lost


def watched(**facts: Any) -> tuple[FakeGpu, FakeGpu, GpuWatch]:
    """Two GPUs that are watched; of the second one's kind hardly anything is told."""
    full = FakeGpu("GPU-0", **facts)
    poor = FakeGpu(
        "GPU-1", memory=None, mig=None, uncorrected={}, remapped=None, retiring=None, recovery=None, xids=None
    )
    watch = GpuWatch(Nvml(FakeNvml(full, poor)), ("GPU-0", "GPU-1"))
    watch.look()
    return full, poor, watch


def test_healthy_gpus_and_those_that_tell_nothing_are_fit() -> None:
    _, _, watch = watched()
    assert watch.unhealthy() == {}


@pytest.mark.parametrize(
    ("illness", "words"),
    [
        ({"lost": pynvml.NVML_ERROR_GPU_IS_LOST}, "it does not answer: GPU is lost"),
        ({"lost": pynvml.NVML_ERROR_UNKNOWN}, "it does not answer: Unknown Error"),
        ({"uncorrected": {2: 1, 7: 2}}, "3 errors of its memory were not corrected since its last reset"),
        ({"remapped": (0, 1, 1, 0)}, "rows of its memory wait to be remapped by a reset"),
        ({"remapped": (0, 9, 0, 1)}, "a row of its memory could not be remapped"),
        ({"retiring": 1}, "pages of its memory wait to be retired by a reset"),
        *(({"recovery": action}, f"the driver asks for {words}") for action, words in ACTIONS.items()),
    ],
)
def test_each_illness_is_told_and_heals(illness: dict[str, Any], words: str) -> None:
    gpu, _, watch = watched()
    well = {name: getattr(gpu, name) for name in illness}
    for name, value in illness.items():
        setattr(gpu, name, value)
    watch.look()
    assert watch.unhealthy() == {0: f"{words} (GPU-0)"}
    for name, value in well.items():
        setattr(gpu, name, value)
    watch.look()
    assert watch.unhealthy() == {}


def test_errors_of_a_program_are_not_the_gpus_and_others_stand() -> None:
    gpu, _, watch = watched()
    assert gpu.xids is not None
    gpu.xids += [13, 31, 43]
    watch.look()
    assert watch.unhealthy() == {}
    gpu.xids += [79, 13, 48]
    watch.look()
    assert watch.unhealthy() == {0: "critical errors since the worker started: XID 48, 79 (GPU-0)"}
    watch.look()
    assert 0 in watch.unhealthy(), "nothing that NVML tells takes an XID back"


def test_all_that_ails_it_is_told_together() -> None:
    look = Look(wants="a reset of it", uncorrected_errors=1, remapping_pending=True)
    assert (ailment(look, [94]) or "").count(";") == 3
    assert ailment(Look(), []) is None


def test_a_driver_that_hangs_is_fit_for_nothing() -> None:
    now = 0.0
    hangs = FakeNvml(FakeGpu("GPU-0"), FakeGpu("GPU-1"))
    watch = GpuWatch(Nvml(hangs), ("GPU-0", "GPU-1"), clock=lambda: now)
    seen: list[dict[int, str]] = []

    def hang(_: str) -> FakeGpu:
        nonlocal now
        seen.append(watch.unhealthy())
        now += gpu_health.STUCK_AFTER_S + 1
        seen.append(watch.unhealthy())
        return hangs.all[0]

    hangs.nvmlDeviceGetHandleByUUID = hang  # type: ignore[method-assign]  # this one driver hangs
    watch.look()
    stuck = "the driver has not answered for 60 s"
    assert seen[:2] == [{}, {0: stuck, 1: stuck}]
    assert watch.unhealthy() == {}


def test_a_node_without_gpus_looks_at_nothing() -> None:
    watch = GpuWatch(Nvml(FakeNvml(error=pynvml.NVML_ERROR_UNKNOWN)), ())
    watch.keep_looking(0.0)
    assert watch.unhealthy() == {}
