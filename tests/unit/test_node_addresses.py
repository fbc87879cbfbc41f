"""Nodes of several machines that give their own loopback as their address take part in no gang."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.addresses import Address, leads_to_oneself, out_of_reach
from shared.domain.cluster import Node, Waiting
from shared.domain.fairshare import decide
from worker.machine import machine_id


def address(host: str, machine: str | None) -> Address:
    return Address(host, machine)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.0.1", "localhost", "LOCALHOST.", "a.localhost", "::1", "[::1]", "0.0.0.0", "::"],
)
def test_what_leads_to_oneself(host: str) -> None:
    assert leads_to_oneself(host)


@pytest.mark.parametrize("host", ["10.0.0.7", "gpu-3", "localhost.example", "fe80::1", "128.0.0.1", ""])
def test_what_leads_to_others(host: str) -> None:
    assert not leads_to_oneself(host)


def test_on_one_machine_the_loopback_is_as_good_as_any_address() -> None:
    assert out_of_reach({"a": address("127.0.0.1", "m"), "b": address("127.0.0.1", "m")}) == set()


def test_on_several_machines_who_gives_its_loopback_is_out_of_reach() -> None:
    nodes = {
        "a": address("127.0.0.1", "m"),
        "b": address("localhost", "n"),
        "c": address("10.0.0.7", "n"),
        "old": address("127.0.0.1", None),
    }
    assert out_of_reach(nodes) == {"a", "b"}, "of one that tells no machine nothing is known"
    assert out_of_reach({**nodes, "b": address("10.0.0.8", "n"), "a": address("10.0.0.9", "m")}) == set()


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.builds(Address, st.sampled_from(("127.0.0.1", "10.0.0.7")), st.sampled_from((None, "m", "n"))),
    )
)
def test_two_nodes_that_are_in_reach_reach_one_another(nodes: dict[str, Address]) -> None:
    left = [one for id, one in nodes.items() if id not in out_of_reach(nodes) and one.machine is not None]
    assert len({one.machine for one in left}) < 2 or all(one.host == "10.0.0.7" for one in left)


def test_this_machine_is_the_same_as_long_as_it_runs() -> None:
    assert machine_id() == machine_id() is not None


def test_a_gang_is_told_which_address_keeps_it_waiting_and_holds_up_nobody() -> None:
    nodes = [Node(id, "cpu", 2, (0, 1), is_out_of_reach=id != "c") for id in "abc"]
    gang = Waiting("gang", (0, 0.0, "gang"), 1, "any", nodes=2)
    decision = decide(nodes, [gang, Waiting("one", (0, 1.0, "one"), 2, "any")])
    assert [placed.job_id for placed in decision.placements] == ["one"]
    assert decision.reasons["gang"] == (
        "needs 2 nodes with 1 of type any each; 2 nodes that could have an advertise_host which other "
        "machines do not reach (see THAW_ADVERTISE_HOST); no more than 1 node of one type has that"
    )
    like_it = Waiting("like it", (0, -1.0, "like it"), 1, "any")
    assert "gang" in decide(nodes, [like_it, gang]).reasons, "what one job may run on is not what a gang may"
    nodes[0] = Node("a", "cpu", 2, (0, 1))
    (placed,) = decide(nodes, [gang]).placements
    assert [part.node_id for part in placed.parts] == ["a", "c"]
