"""Who runs next, and where: jobs of one team, gangs among them, and what each may run on."""

from __future__ import annotations

import pytest

from shared.domain.cluster import Node, Part, Placement, Waiting, accelerator_fits
from shared.domain.fairshare import decide

H100 = "NVIDIA H100 80GB HBM3"


def node(id: str, free: int, *, slots: int = 4, accelerator: str = "cpu", **facts: object) -> Node:
    return Node(id=id, accelerator=accelerator, n_slots=slots, free_slots=tuple(range(free)), **facts)


def job(id: str, devices: int = 1, *, priority: int = 0, at: float = 0.0, **facts: object) -> Waiting:
    return Waiting(
        id=id,
        order=(-priority, at, id),
        devices_per_node=devices,
        **{"accelerator": "any", **facts},
    )


def placed(nodes: list[Node], queue: list[Waiting]) -> list[str]:
    return [placement.job_id for placement in decide(nodes, queue).placements]


def test_first_come_first_served() -> None:
    queue = [job("late", at=2.0), job("early", at=1.0)]
    assert placed([node("a", 1)], queue) == ["early"]


def test_priority_goes_before_age_and_the_id_settles_ties() -> None:
    queue = [job("b"), job("a"), job("urgent", priority=5, at=9.0)]
    assert placed([node("a", 3)], queue) == ["urgent", "a", "b"]


def test_no_slot_is_given_twice_and_the_fullest_node_that_fits_is_taken() -> None:
    decision = decide([node("big", 4), node("small", 2)], [job("a", 2), job("b", 2), job("c", 2)])
    assert decision.placements == (
        Placement("a", (Part("small", (0, 1)),)),
        Placement("b", (Part("big", (0, 1)),)),
        Placement("c", (Part("big", (2, 3)),)),
    )


def test_a_large_job_is_not_starved_by_small_ones_behind_it() -> None:
    decision = decide([node("a", 2)], [job("large", 4, at=1.0), job("small", 1, at=2.0)])
    assert decision.placements == ()
    assert decision.reasons["large"].endswith("the largest free block is 2")
    assert decision.reasons["small"].endswith("there is room, and a job ahead in the queue waits for it")


def test_a_job_that_waits_for_gpus_holds_up_no_cpu_job() -> None:
    nodes = [node("gpu", 0, accelerator=H100), node("cpu", 1)]
    queue = [job("gpu-job", accelerator="cuda", at=1.0), job("cpu-job", accelerator="cpu", at=2.0)]
    assert placed(nodes, queue) == ["cpu-job"]


def test_a_job_that_no_node_could_run_says_so_and_holds_up_nobody() -> None:
    decision = decide([node("a", 4)], [job("huge", 9, at=1.0), job("small", at=2.0)])
    assert [placement.job_id for placement in decision.placements] == ["small"]
    assert decision.reasons == {"huge": "needs 9 of type any on one node; no node has that"}


def test_a_registered_model_runs_only_where_the_same_sources_are_installed() -> None:
    queue = [job("net", registered_model=("net", "hash-1"))]
    assert placed([node("a", 1, models=frozenset({("net", "hash-2")}))], queue) == []
    assert "registered model net" in decide([node("a", 1)], queue).reasons["net"]
    assert placed([node("b", 1, models=frozenset({("net", "hash-1")}))], queue) == ["net"]


def test_a_gang_is_placed_whole_on_the_fullest_nodes_of_one_type() -> None:
    nodes = [node("empty", 4), node("c", 2), node("b", 3), node("gpu", 4, accelerator=H100)]
    decision = decide(nodes, [job("gang", 2, nodes=2)])
    assert decision.placements == (Placement("gang", (Part("c", (0, 1)), Part("b", (0, 1)))),)


def test_a_gang_that_finds_too_few_nodes_takes_none_and_is_told_how_many_there_are() -> None:
    nodes = [node("a", 4), node("b", 3), node("gpu", 4, accelerator=H100)]
    decision = decide(nodes, [job("gang", 4, nodes=2), job("cpus", 4, nodes=2, accelerator="cpu", at=1.0)])
    assert decision.placements == ()
    assert decision.reasons == {
        "gang": "needs 2 nodes with 4 of type any each; 1 node has so many free",
        "cpus": "needs 2 nodes with 4 of type cpu each; 1 node has so many free",
    }


def test_a_gang_for_which_there_are_too_few_nodes_says_so_and_holds_up_nobody() -> None:
    nodes = [node("a", 4), node("b", 4), node("small", 1, slots=1), node("gpu", 8, slots=8, accelerator=H100)]
    gangs = [job("three", 4, nodes=3), job("two", 8, nodes=2), job("none", 9, nodes=2), job("one", at=1.0)]
    decision = decide(nodes, gangs)
    assert [placement.job_id for placement in decision.placements] == ["one"]
    assert decision.reasons == {
        "three": "needs 3 nodes with 4 of type any each; no more than 2 nodes of one type have that",
        "two": "needs 2 nodes with 8 of type any each; no more than 1 node of one type has that",
        "none": "needs 2 nodes with 9 of type any each; no node has that",
    }


def test_a_gang_takes_only_nodes_with_the_same_sources_of_its_model() -> None:
    there, other = frozenset({("net", "hash-1")}), frozenset({("net", "hash-2")})
    queue = [job("gang", 1, nodes=2, registered_model=("net", "hash-1"))]
    assert placed([node("a", 1, models=there), node("b", 1, models=other)], queue) == []
    decision = decide([node("a", 1, models=there), node("b", 1, models=other)], queue)
    assert decision.reasons["gang"].endswith(
        "no more than 1 node of one type with the registered model net has that"
    )
    assert placed([node("a", 1, models=there), node("b", 2, models=there | {("x", "y")})], queue) == ["gang"]


@pytest.mark.parametrize(
    ("asked", "has", "fits"),
    [
        ("any", "cpu", True),
        ("any", H100, True),
        ("cpu", "cpu", True),
        ("cpu", H100, False),
        ("cuda", H100, True),
        ("cuda", "cpu", False),
        ("h100", H100, True),
        ("A100", H100, False),
        ("H100", "cpu", False),
    ],
)
def test_which_accelerator_serves_which_wish(asked: str, has: str, *, fits: bool) -> None:
    assert accelerator_fits(asked, has) is fits
