"""Where the ranks of several nodes meet: the interface that they are told to use, a port that is taken."""

from __future__ import annotations

import socket
from contextlib import closing

from worker.launch import LaunchPlan, agent_environment
from worker.rendezvous import interface_of, is_taken


def plan(**changes: object) -> LaunchPlan:
    least: dict[str, object] = {
        "nodes": 2,
        "node_rank": 0,
        "master_addr": "10.0.0.1",
        "master_port": 29500,
        "slot_locks": ["slot-0.lock"],
        "threads_per_rank": 1,
        "hold_after_s": 40.0,
        "kill_after_held_s": 300.0,
        "log_bytes": 1000,
    }
    return LaunchPlan.model_validate(least | changes)


def test_an_address_leads_to_the_interface_that_has_it() -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert interface_of("127.0.0.1") in names
    assert interface_of("203.0.113.7") is None, "an address of documentation, which no host has"
    assert interface_of("no-such-host.invalid") is None


def test_ranks_use_the_interface_of_their_node_unless_the_operator_names_another() -> None:
    told = plan(interface="eth1")
    assert agent_environment(told, {}, 1)["GLOO_SOCKET_IFNAME"] == "eth1"
    assert agent_environment(told, {"GLOO_SOCKET_IFNAME": "ib0"}, 1)["GLOO_SOCKET_IFNAME"] == "ib0"
    own = plan(interface="eth1", trainer_env={"GLOO_SOCKET_IFNAME": "ib1"})
    assert agent_environment(own, {}, 1)["GLOO_SOCKET_IFNAME"] == "ib1"
    assert "GLOO_SOCKET_IFNAME" not in agent_environment(plan(), {}, 1)


def test_a_port_is_taken_while_somebody_listens_there() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        assert is_taken(port, within_s=0.0)
    assert not is_taken(port, within_s=5.0)
