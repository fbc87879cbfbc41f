"""When a team's younger jobs may pass an older one that waits: not where it would wait for them."""

from __future__ import annotations

from dataclasses import replace

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.fairshare import Decision, decide
from shared.domain.queue_order import in_order
from shared.domain.quota import Quota, TeamShare


def node(id: str, free: int, *, accelerator: str = "gpu") -> Node:
    return Node(id=id, accelerator=accelerator, n_slots=8, free_slots=tuple(range(free)))


def job(id: str, team: str, devices: int = 1, *, nodes: int = 1, at: float = 0.0) -> Waiting:
    return Waiting(id, (0, at, id), devices, "gpu", nodes, team=team)


def small(team: str, n: int, *, at: float = 9.0) -> list[Waiting]:
    return [job(f"{team}{i}", team, at=at + i) for i in range(n)]


def runs(id: str, team: str, node: str, slots: int, *, left: float = 0.0, since: float = 5.0) -> Running:
    """It has passed what came before second 5."""
    return Running(id, team, ((node, slots),), "gpu", started_at=since, remaining_s=left)


def owning(nominal: int, borrow: int | None = None, lend: int | None = None) -> TeamShare:
    return TeamShare(quotas={"gpu": Quota(nominal, borrow, lend)})


def placed(decision: Decision) -> list[str]:
    return sorted(placement.job_id for placement in decision.placements)


def test_what_its_limit_leaves_a_team_is_kept_for_the_first_that_waits_for_it() -> None:
    nodes, running = [node("m", 8), node("n", 7)], [runs("r", "a", "n", 1)]
    queue = [job("large", "a", 8), *small("a", 3), *small("b", 1)]
    decision = decide(nodes, queue, running=running, teams={"a": owning(2, borrow=6)})
    assert placed(decision) == ["b0"]
    assert "your team holds 1 of type gpu" in decision.reasons["large"]
    assert decision.reasons["a0"].endswith(
        "what your team may still hold of type gpu is kept for a job of it that is ahead"
    )


def test_younger_jobs_take_what_the_limit_leaves_beside_the_first() -> None:
    nodes, running = [node("m", 4), node("n", 7)], [runs("s", "b", "m", 4), runs("r", "a", "n", 1)]
    queue = [job("large", "a", 8), *small("a", 5)]
    decision = decide(nodes, queue, running=running, teams={"a": owning(0, borrow=12)})
    assert placed(decision) == ["a0", "a1", "a2"], "1 and 8 and 3 are 12"


def test_what_others_do_not_lend_is_a_limit_too() -> None:
    nodes, running = [node("m", 8), node("n", 7)], [runs("r", "a", "n", 1)]
    queue = [job("large", "a", 8), *small("a", 3)]
    decision = decide(nodes, queue, running=running, teams={"owner": owning(8, lend=0)})
    assert placed(decision) == []
    assert "do not lend them" in decision.reasons["large"]


def test_a_job_that_its_team_could_never_have_holds_nobody_back() -> None:
    for terms in ({"a": owning(2, borrow=6)}, {"owner": owning(8, lend=0)}):
        nodes = [node("m", 8), node("n", 8)]
        queue = [job("gang", "a", 8, nodes=2), *small("a", 3)]
        assert placed(decide(nodes, queue, teams=terms)) == ["a0", "a1", "a2"]


def test_nobody_waits_with_a_job_for_what_ran_before_it_came() -> None:
    """Else one job that runs for a month and a large one that came later would stop all of the team."""
    nodes, running = [node("m", 8), node("n", 7)], [runs("r", "a", "n", 1, since=-1.0)]
    queue = [job("large", "a", 8), *small("a", 3)]
    for terms in (owning(2, borrow=6), owning(8, borrow=0)):
        assert placed(decide(nodes, queue, running=running, teams={"a": terms})) == ["a0", "a1", "a2"]
    passed = [*running, runs("s", "a", "n", 1)]
    assert placed(decide(nodes, queue, running=passed, teams={"a": owning(9, borrow=0)})) == []


def test_a_job_whose_nodes_take_no_work_holds_nobody_back() -> None:
    nodes = [replace(node("m", 0), takes_work=False), Node("n", "gpu", 4, (0, 1, 2, 3))]
    queue = [job("large", "a", 8), *small("a", 3)]
    assert placed(decide(nodes, queue, teams={"a": owning(0, borrow=8)})) == ["a0", "a1", "a2"]
    assert placed(decide(nodes, queue, teams={"a": owning(8, borrow=0)})) == ["a0", "a1", "a2"]


def test_the_unused_part_of_a_quota_is_kept_for_the_first_that_is_within_the_whole() -> None:
    """All of both nodes is owed; else what the team's jobs hand back goes to its small ones for ever."""
    nodes = [node("m", 2), node("n", 0)]
    running = [runs("a-old", "a", "m", 6), runs("b-old", "b", "n", 8)]
    queue = [job("large", "a", 8), *small("a", 3), *small("b", 1)]
    decision = decide(nodes, queue, running=running, teams={"a": owning(8), "b": owning(8)})
    assert placed(decision) == []
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("large", "m")]
    assert decision.reasons["a0"].endswith("is kept for a job of it that is ahead")


def test_a_team_that_holds_all_of_its_quota_borrows_on_past_the_first() -> None:
    nodes = [node("m", 7), node("n", 2)]
    running = [runs("a-old", "a", "n", 6), runs("a-too", "a", "k", 2), runs("b", "b", "m", 1)]
    queue = [job("large", "a", 8), *small("a", 3)]
    decision = decide([*nodes, node("k", 0)], queue, running=running, teams={"a": owning(8)})
    assert placed(decision) == ["a0", "a1"], "the other node is kept"


def test_what_is_larger_than_the_quota_keeps_none_of_it_from_the_younger_ones() -> None:
    running = [runs("b", "b", "m", 4)]
    queue = [job("large", "a", 8), *small("a", 5)]
    assert placed(decide([node("m", 4)], queue, running=running, teams={"a": owning(3)})) == [
        "a0",
        "a1",
        "a2",
    ]


def test_the_next_that_waits_is_left_its_part_too_once_the_first_is_placed() -> None:
    nodes, running = [node("m", 3), node("n", 3)], [runs("b", "b", "m", 5), runs("c", "b", "n", 5)]
    queue = [job("first", "a", 2, at=-1.0), job("large", "a", 8), *small("a", 3)]
    decision = decide(nodes, queue, running=running, teams={"a": owning(0, borrow=10)})
    assert placed(decision) == ["first"]


def test_where_the_quota_holds_both_they_do_not_wait_for_one_another() -> None:
    nodes = [node("m", 4), node("n", 4)]
    running = [runs(f"b-{id}", "b", id, 4, left=float(i)) for i, id in enumerate("mn")]
    queue = [job("large", "a", 8), *small("a", 3)]
    decision = decide(nodes, queue, running=running, teams={"a": owning(10), "b": owning(8)})
    assert placed(decision) == ["a0", "a1"], "10 hold 8 and 2"
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("large", "m")]


def test_room_for_what_is_owed_is_kept_from_what_is_owed_later() -> None:
    nodes = [node("m", 4), node("n", 4)]
    running = [runs(f"b-{id}", "b", id, 4, left=float(i)) for i, id in enumerate("mn")]
    queue = [job("large", "a", 8), *small("b", 9)]
    decision = decide(nodes, queue, running=running, teams={"a": owning(8), "b": owning(16)})
    assert {part.node_id for one in decision.placements for part in one.parts} == {"n"}
    assert placed(decision) == ["b0", "b1", "b2", "b3"]


def test_a_job_that_borrows_elsewhere_in_the_end_keeps_no_room() -> None:
    nodes = [node("m", 4), node("other", 8, accelerator="gpu two")]
    running = [runs("b-old", "b", "m", 4)]
    teams = {"a": owning(8), "b": owning(8)}
    decision = decide(nodes, [job("large", "a", 8)], running=running, teams=teams)
    assert [one.parts[0].node_id for one in decision.placements] == ["other"]
    assert decision.reservations == ()


def test_a_job_keeps_room_of_one_type_alone() -> None:
    nodes = [node("m", 4), node("other", 4, accelerator="gpu two")]
    running = [runs("b", "b", "m", 4), Running("c", "b", (("other", 4),), "gpu two", 0.0)]
    teams = {"a": owning(8), "b": owning(8)}
    decision = decide(nodes, [job("large", "a", 8), *small("b", 4)], running=running, teams=teams)
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("large", "m")]
    assert {one.parts[0].node_id for one in decision.placements} == {"other"}


def test_who_may_have_it_of_another_type_leaves_the_first_to_the_younger_ones() -> None:
    nodes = [node("m", 7), node("other", 6, accelerator="gpu two")]
    running = [runs("r", "a", "m", 1)]
    queue = [job("large", "a", 8), *(replace(one, accelerator="any") for one in small("a", 3))]
    decision = decide(nodes, queue, running=running, teams={"a": owning(0, borrow=8)})
    assert {part.node_id for one in decision.placements for part in one.parts} == {"m"}
    assert placed(decision) == ["a0", "a1", "a2"]


def test_the_queue_is_told_in_that_order_and_what_is_behind_a_barred_job_is_barred() -> None:
    nodes, running = [node("m", 8), node("n", 7)], [runs("r", "a", "n", 1)]
    queue = [job("large", "a", 8), *small("a", 1), *small("b", 1)]
    barred = in_order(queue, nodes, running=running, teams={"a": owning(2, borrow=6)})
    assert [(turn.job.id, turn.is_barred) for turn in barred] == [
        ("large", True),
        ("a0", True),
        ("b0", False),
    ]
    within = in_order(queue, nodes, running=running, teams={"a": owning(8)})
    assert next((turn.job.id, turn.is_barred) for turn in within) == ("large", False)
