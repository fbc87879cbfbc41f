"""A job on two nodes: two supervisors with a folder each, real ranks that meet over gloo, one database."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from dispatch_rows import World
from hosts import Host, NotPermitted, two_hosts
from launched import eventually, free_port
from supervised import House

from shared.db.engine import make_engine, transaction
from shared.db.history import lock_job, move
from shared.domain.job import JobState, NodeState, Outcome, StopReason
from shared.settings import Settings
from worker.machine import machine_id

pytestmark = pytest.mark.slow

END = 90.0
NODES = ("node-0", "node-1")
LONG = 60
OFTEN = {"THAW_RENEW_S": "0.5"}  # so that a stop is seen soon


@pytest.fixture
def house(database_url: str, store_url: str, tmp_path: Path) -> Iterator[House]:
    settings = Settings(
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        store_url=store_url,
        work_dir=tmp_path / "work",
    )
    engine = make_engine(database_url)
    world = World(engine).found()
    for node in NODES:
        world.node(node)
    house = House(settings, world)
    yield house
    engine.dispose()
    eventually(lambda: not house.trainers(), within_s=10, what="no trainer is left")


def run_gang(house: House, job: str) -> None:
    claims = house.claim_gang(job, *NODES)
    supervisors = [house.supervise(*share, **OFTEN) for share in zip(claims, NODES, strict=True)]
    assert [one.wait(END) for one in supervisors] == [0, 0]


def test_a_paused_gang_goes_on_to_the_bytes_of_as_many_ranks_on_one_node(house: House) -> None:
    alone, gang = house.job(n_epochs=LONG), house.job(n_epochs=LONG, nodes=2)
    assert house.supervise(house.claim(alone)).wait(END) == 0

    claims = house.claim_gang(gang, *NODES)
    supervisors = [house.supervise(*share, **OFTEN) for share in zip(claims, NODES, strict=True)]
    eventually(lambda: house.checkpoints(gang), within_s=END, what="it trains")
    house.world.stop(gang, StopReason.PAUSE)
    assert [one.wait(END) for one in supervisors] == [0, 0]

    paused = house.world.read(gang)
    assert (paused.state, paused.attempts_used) == (JobState.PAUSED, 0), paused.error
    shares = [house.world.allocation(claim.allocation_id) for claim in claims]
    assert [share.outcome for share in shares] == [Outcome.STOPPED, Outcome.STOPPED]
    assert [share.error for share in shares] == [None, None]
    left_at = house.checkpoints(gang)[-1].step
    assert 0 < left_at < 5 * LONG

    with transaction(house.world.engine) as session:
        move(session, lock_job(session, gang), JobState.QUEUED, actor="test", reason="resumed")
    run_gang(house, gang)

    ended = house.world.read(gang)
    assert ended.state is JobState.SUCCEEDED, ended.error
    resumed = [event for event in house.world.events(gang) if event.data.get("code") == "resumed"]
    assert [event.data["step"] for event in resumed] == [left_at]
    assert house.weights(gang) == house.weights(alone)
    assert [house.world.slots(node) for node in NODES] == [["free", "free"], ["free", "free"]]


def test_nodes_that_would_go_on_from_different_checkpoints_leave_the_newer_one_out(
    house: House, tmp_path: Path
) -> None:
    """Each fetches for itself; one finds a file rotten that the other could read."""
    gang = house.job(n_epochs=LONG, nodes=2)
    claims = house.claim_gang(gang, *NODES)
    supervisors = [house.supervise(*share, **OFTEN) for share in zip(claims, NODES, strict=True)]
    eventually(lambda: len(house.checkpoints(gang)) > 1, within_s=END, what="two checkpoints are stored")
    house.world.stop(gang, StopReason.PREEMPT)
    assert [one.wait(END) for one in supervisors] == [0, 0]

    newest = house.checkpoints(gang)[-1]
    rotten = tmp_path / "rotten"
    shutil.copytree(Path(house.settings.store_url.removeprefix("file://")), rotten)
    (rotten / newest.storage_prefix / "state.pt").write_bytes(b"rotten")
    claims = house.claim_gang(gang, *NODES)
    stores = ({}, {"THAW_STORE_URL": rotten.as_uri()})
    supervisors = [
        house.supervise(claim, node, **OFTEN, **store)
        for claim, node, store in zip(claims, NODES, stores, strict=True)
    ]
    assert [one.wait(END) for one in supervisors] == [0, 0]

    refused = house.world.attempts(gang)[1]
    assert refused.error is not None
    assert refused.error["code"] == "checkpoint_mismatch"
    assert f"rank 0 from step {newest.step}, rank 1 from step" in refused.error["message"]
    job = house.world.read(gang)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)
    assert house.checkpoints(gang)[-1].damaged_at is not None, "the next try goes on from the one before"


def test_ranks_of_hosts_with_networks_of_their_own_meet_over_the_cable_between_them(house: House) -> None:
    """Neither reaches the other's loopback, and the host's name leads nowhere."""
    gang = house.job(n_epochs=4, nodes=2)
    with cabled() as hosts:
        claims = house.claim_gang(gang, *NODES, master_addr=hosts[0].address)
        supervisors = [
            house.supervise(claim, node, within=host.within, THAW_ADVERTISE_HOST=host.address, **OFTEN)
            for claim, node, host in zip(claims, NODES, hosts, strict=True)
        ]
        assert [one.wait(END) for one in supervisors] == [0, 0]
        received = [host.received_bytes() for host in hosts]

    ended = house.world.read(gang)
    assert ended.state is JobState.SUCCEEDED, ended.error
    assert ended.result is not None
    gradients = 20 * 4 * ended.result["n_trainable"]
    assert min(received) > gradients, "every gradient of 20 steps went over the cable"


def test_a_host_of_its_own_network_is_another_machine() -> None:
    """As a container is, although both have one kernel: its loopback is its own."""
    told = [sys.executable, "-c", "from worker.machine import machine_id; print(machine_id())"]
    with cabled() as hosts:
        machines = {subprocess.check_output([*host.within, *told], text=True).strip() for host in hosts}
    assert len(machines - {str(machine_id())}) == 2


@contextmanager
def cabled() -> Iterator[tuple[Host, Host]]:
    """Two hosts, unless this machine permits none."""
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(two_hosts())
        except NotPermitted as refused:
            pytest.skip(str(refused))
        yield hosts


def test_a_taken_port_is_the_nodes_fault_and_ends_the_whole_gang(house: House) -> None:
    gang, port = house.job(nodes=2), free_port()
    with closing(socket.create_server(("", port))):
        claims = house.claim_gang(gang, *NODES, master_port=port)
        supervisors = [house.supervise(*share, **OFTEN) for share in zip(claims, NODES, strict=True)]
        assert [one.wait(END) for one in supervisors] == [0, 0]

    lost = house.world.attempts(gang)[0]
    assert lost.error is not None
    assert (lost.outcome, lost.error["code"]) == (Outcome.LOST, "port_taken")
    assert str(port) in lost.error["message"]
    job = house.world.read(gang)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 1)
    assert [house.world.node_row(node).state for node in NODES] == [NodeState.SUSPECT, NodeState.READY]


def test_a_node_that_waits_for_its_gang_leaves_when_the_job_is_asked_to_stop(house: House) -> None:
    """The other one still fetches its inputs, say: no rank is there that could heed the stop."""
    gang = house.job(nodes=2)
    first, second = house.claim_gang(gang, *NODES)
    supervisor = house.supervise(second, "node-1", **OFTEN)
    eventually(lambda: len(house.trainers()) == 1, within_s=END, what="its agent waits")
    house.world.stop(gang, StopReason.PAUSE)

    assert supervisor.wait(20) == 0
    left = house.world.allocation(second.allocation_id)
    assert (left.outcome, left.error) == (Outcome.STOPPED, None)
    assert house.world.finish(first, Outcome.STOPPED)
    job = house.world.read(gang)
    assert (job.state, job.attempts_used) == (JobState.PAUSED, 0)
