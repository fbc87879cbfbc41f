"""Jobs are placed where the devices have the memory that they take, and those that wait are told of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.cluster import Node, Running, Waiting, could_ever_run
from shared.domain.fairshare import decide
from shared.domain.queue_order import in_order
from shared.domain.quota import Quota, TeamShare
from shared.domain.room import Shape, memory_sizes

GIB = 2**30
A100 = "NVIDIA A100"


def node(id: str, gib: float | None, *, free: int = 1, slots: int = 1, accelerator: str = A100) -> Node:
    memory = None if gib is None else int(gib * GIB)
    return Node(id, accelerator, slots, tuple(range(free)), memory_bytes=memory)


def job(id: str, gib: float | None, **facts: Any) -> Waiting:
    memory = None if gib is None else int(gib * GIB)
    asked = {"devices_per_node": 1, "accelerator": "any", **facts}
    return Waiting(id=id, order=(0, 0.0, id), memory_bytes=memory, **asked)


def placed(nodes: list[Node], *queue: Waiting) -> dict[str, str]:
    return {one.job_id: one.parts[0].node_id for one in decide(nodes, queue).placements}


def test_of_two_kinds_of_one_name_the_one_with_the_memory_is_taken() -> None:
    assert placed([node("a40", 40), node("b80", 80)], job("1", 60)) == {"1": "b80"}


def test_a_small_job_does_not_wait_behind_a_large_one_that_fits_elsewhere_only() -> None:
    nodes = [node("a40", 40), node("b80", 80, free=0)]
    assert placed(nodes, job("1", 60), job("2", 30)) == {"2": "a40"}


@pytest.mark.parametrize("needed", [60, None, 0])
def test_unknown_memory_and_cpus_refuse_nobody(needed: float | None) -> None:
    assert placed([node("a", None)], job("1", needed)) == {"1": "a"}
    assert placed([node("a", 1, accelerator="cpu")], job("1", needed)) == {"1": "a"}


def test_the_last_byte_counts() -> None:
    nodes = [Node("a", A100, 1, (0,), memory_bytes=15 * GIB + 5)]
    assert placed(nodes, Waiting("1", (0, 0.0, "1"), 1, "any", memory_bytes=15 * GIB + 5)) == {"1": "a"}
    assert placed(nodes, Waiting("1", (0, 0.0, "1"), 1, "any", memory_bytes=15 * GIB + 6)) == {}


def test_who_fits_nowhere_is_told_what_it_takes_and_what_there_is() -> None:
    decision = decide(
        [node("a", 40), node("b", 80), node("c", None, accelerator="cpu")],
        [job("1", 100, accelerator="cuda")],
    )
    assert decision.reasons["1"] == (
        "needs 1 of type cuda on one node; it takes 100.0 GiB of each device, more than these have: "
        "NVIDIA A100 (40.0 GiB), NVIDIA A100 (80.0 GiB); no other node has that"
    )


def test_who_waits_for_larger_devices_is_told_why_the_free_ones_do_not_count() -> None:
    decision = decide([node("a", 40), node("b", 80, free=0)], [job("1", 60)])
    assert decision.reasons["1"] == (
        "needs 1 of type any on one node; the largest free block is 0; it takes 60.0 GiB of each device, "
        "more than these have: NVIDIA A100 (40.0 GiB)"
    )


def test_memory_is_not_spoken_of_where_it_decides_nothing() -> None:
    decision = decide([node("b", 80, free=0)], [job("1", 60)])
    assert decision.reasons["1"] == "needs 1 of type any on one node; the largest free block is 0"


def test_a_quota_is_taken_back_where_the_memory_is() -> None:
    running = [
        Running(f"r-{id}", "lender", ((id, 1),), A100, started_at=at)
        for id, at in (("a40", 9.0), ("b80", 1.0))
    ]
    teams = {"owner": TeamShare(quotas={A100: Quota(2)})}
    nodes = [node("a40", 40, free=0), node("b80", 80, free=0)]
    queue = [job("large", 60, team="owner"), job("small", 30, team="owner")]
    decision = decide(nodes, queue, running=running, teams=teams)
    kept = {one.job_id: one.node_id for one in decision.reservations}
    assert kept == {"large": "b80", "small": "a40"}
    assert {one.job_id for one in decision.preemptions} == {"r-a40", "r-b80"}


def test_a_job_that_fits_nowhere_has_its_place_in_the_queue() -> None:
    turns = in_order([job("1", 100), job("2", 10)], [node("a", 40)])
    assert [turn.job.id for turn in turns] == ["1", "2"]


def test_jobs_that_differ_by_some_bytes_are_alike() -> None:
    sizes = memory_sizes([node("a", 40), node("b", 80), node("c", None), node("d", 40)])
    assert sizes == [40 * GIB, 80 * GIB]
    shapes = {Shape.of(job(str(n), 50 + n / 1000), sizes) for n in range(1, 900)}
    assert {shape.memory_bytes for shape in shapes} == {51 * GIB}


def test_jobs_that_every_node_holds_are_alike() -> None:
    sizes = memory_sizes([node("a", 40), node("b", 80)])
    assert [Shape.of(job("1", gib), sizes).memory_bytes for gib in (1, 40)] == [None, None]
    assert Shape.of(job("1", 40.001), sizes).memory_bytes == 41 * GIB


@given(st.integers(0, 100 * GIB), st.lists(st.integers(1, 100 * GIB), max_size=6))
def test_rounding_changes_nothing_of_where_a_job_fits(needed: int, sizes: list[int]) -> None:
    nodes = [Node(str(n), A100, 1, (0,), memory_bytes=size) for n, size in enumerate(sizes)]
    exact = Waiting("1", (0, 0.0, "1"), 1, "any", memory_bytes=needed)
    rounded = Shape.of(exact, memory_sizes(nodes)).memory_bytes
    assert rounded is None or rounded >= needed
    alike = Waiting("1", (0, 0.0, "1"), 1, "any", memory_bytes=rounded)
    for one in nodes:
        assert could_ever_run(exact, one) == could_ever_run(alike, one)
