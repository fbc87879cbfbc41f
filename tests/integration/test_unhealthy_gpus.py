"""A GPU that is not fit for work is given no new job until it is well; what runs there is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pynvml
import pytest
from api_house import ApiHouse, api_on
from dispatch_rows import World
from fake_nvml import GIB, FakeGpu, FakeNvml

from scheduler.placing import place_jobs
from shared.db import placement
from shared.db.steps import run_step
from shared.domain.cluster import Part, Placement
from shared.domain.job import JobState, Outcome
from shared.queue import redis_client
from shared.settings import Settings
from worker.devices import find_devices
from worker.gpu_health import GpuWatch
from worker.handling import handling
from worker.node import Node
from worker.nvml import Nvml

A100 = "NVIDIA A100-SXM4-80GB"


@dataclass
class GpuHost:
    """A host with two GPUs, its worker as it registers, looks and beats, and the API of the cluster."""

    api: ApiHouse
    world: World
    settings: Settings
    library: FakeNvml

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new life of its worker."""
        nvml = Nvml(self.library)
        devices = find_devices(None, nvml, {})
        self.watch = GpuWatch(nvml, devices.uuids)
        self.watch.look()
        queue = redis_client(self.settings.redis_url.get_secret_value())
        self.node = Node(self.settings, devices, self.world.engine, queue, self.watch.unhealthy)
        self.node.register()
        self.world.incarnations["node-0"] = self.node.incarnation

    def beat(self) -> None:
        self.watch.look()
        self.node.beat()

    def place(self) -> list[int]:
        """A scheduling pass; which slots it gives out."""
        offers = run_step(self.world.engine, place_jobs, self.settings)
        return [slot for offer in offers for slot in self.world.allocation(offer.allocation_id).slots]

    def slots(self) -> list[tuple[str, str | None]]:
        """State and illness of each slot, as the API tells them."""
        node: dict[str, Any] = self.api.client.get("/v1/nodes/node-0").json()
        return [(slot["state"], slot["unhealthy_reason"]) for slot in node["slots"]]

    def sums(self) -> dict[str, int]:
        (found,) = self.api.client.get("/v1/queue").json()["slots"]
        return {state: found[state] for state in ("free", "held", "dirty", "away", "unhealthy")}


@pytest.fixture
def host(settings: Settings) -> Iterator[GpuHost]:
    settings.node_name = "node-0"
    with api_on(settings) as api:
        world = World(api.engine).found()
        library = FakeNvml(FakeGpu("GPU-0", bus=1), FakeGpu("GPU-1", bus=2))
        yield GpuHost(api, world, settings, library)


def test_a_node_registers_its_gpus_with_their_memory(host: GpuHost) -> None:
    row = host.world.node_row()
    assert (row.accelerator, row.memory_bytes) == (A100, 80 * GIB)
    assert host.slots() == [("free", None), ("free", None)]


def test_an_unhealthy_gpu_is_given_no_job_until_it_is_well(host: GpuHost) -> None:
    ill, _ = host.library.all
    ill.remapped = (0, 1, 1, 0)
    host.beat()
    reason = "rows of its memory wait to be remapped by a reset (GPU-0)"
    assert host.slots() == [("free", reason), ("free", None)]
    assert host.sums() == {"free": 1, "held": 0, "dirty": 0, "away": 0, "unhealthy": 1}
    told = host.api.client.get("/metrics").text
    assert f'thaw_slots{{accelerator="{A100}",state="unhealthy"}} 1.0' in told

    both, single = host.world.job(devices_per_node=2, priority=-1), host.world.job()
    assert host.place() == [1]
    assert host.world.read(single).state is JobState.DISPATCHED
    assert host.world.read(both).wait_reason == (
        "needs 2 of type any on one node; the largest free block is 0"
    )

    ill.remapped = (0, 1, 0, 0)
    host.beat()
    assert host.slots() == [("free", None), ("held", None)]
    another = host.world.job(priority=1)
    assert host.place() == [0]
    assert host.world.read(another).state is JobState.DISPATCHED


def test_the_job_that_runs_on_it_is_left_alone_and_its_slot_is_not_given_out_after(host: GpuHost) -> None:
    job = host.world.job()
    (offer,) = run_step(host.world.engine, place_jobs, host.settings)
    claimed = host.world.claim(offer)
    assert claimed is not None
    host.library.all[0].lost = pynvml.NVML_ERROR_GPU_IS_LOST
    with handling(host.settings.work_dir, offer.allocation_id):
        host.beat()
    assert host.slots()[0] == ("held", "it does not answer: GPU is lost (GPU-0)")
    assert host.sums()["held"] == 1
    assert host.world.read(job).state is JobState.RUNNING
    assert host.world.finish(claimed, Outcome.FAILED)
    assert host.slots()[0][0] == "free"
    host.world.job()
    host.world.job()
    assert host.place() == [1]


def test_an_offer_is_not_made_on_a_gpu_that_fell_ill_after_the_pass_had_looked(host: GpuHost) -> None:
    job = host.world.job()
    host.library.all[0].uncorrected = {2: 1}
    host.beat()
    made = run_step(host.world.engine, placement.place, Placement(job, (Part("node-0", (0,)),)))
    assert made == []
    assert host.world.read(job).state is JobState.QUEUED


def test_a_worker_that_starts_says_at_once_which_gpus_are_ill(host: GpuHost) -> None:
    host.library.all[1].recovery = pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET
    host.restart()
    assert [reason for _, reason in host.slots()] == [
        None,
        "the driver asks for a reset of it (GPU-1)",
    ]
    host.library.all[1].recovery = pynvml.NVML_GPU_RECOVERY_ACTION_NONE
    host.restart()
    assert host.slots() == [("free", None), ("free", None)]


def test_an_xid_stands_until_the_worker_starts_again(host: GpuHost) -> None:
    host.library.all[0].xids = [79]
    host.restart()
    host.beat()
    assert host.slots()[0] == ("free", "critical errors since the worker started: XID 79 (GPU-0)")
    host.restart()
    assert host.slots() == [("free", None), ("free", None)]


def test_a_job_goes_to_the_node_that_has_its_memory(host: GpuHost) -> None:
    job = host.world.job(memory_bytes=90 * GIB)
    assert host.place() == []
    assert host.world.read(job).wait_reason == (
        "needs 1 of type any on one node; it takes 90.0 GiB of each device, more than these have: "
        f"{A100} (80.0 GiB); no other node has that"
    )
    host.library.all = [FakeGpu("GPU-2", memory=96 * GIB)]
    host.restart()
    assert host.place() == [0]
