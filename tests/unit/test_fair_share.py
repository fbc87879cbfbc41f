"""Quotas, borrowing, taking back, turns by usage and weight, and who may pass a job that waits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.fairshare import Decision, decide
from shared.domain.queue_order import in_order
from shared.domain.quota import Quota, TeamShare
from shared.domain.standing import held_on_average


def node(id: str, free: int, *, slots: int = 8) -> Node:
    return Node(id=id, accelerator="gpu", n_slots=slots, free_slots=tuple(range(free)))


def job(
    id: str, team: str, devices: int = 1, *, nodes: int = 1, at: float = 0.0, priority: int = 0
) -> Waiting:
    return Waiting(id, (-priority, at, id), devices, "gpu", nodes, team=team)


def runs(id: str, team: str, node: str, slots: int = 1, *, since: float = 0.0, left: float = 0.0) -> Running:
    return Running(id, team, ((node, slots),), "gpu", started_at=since, remaining_s=left)


def gang_runs(id: str, team: str, *nodes: str, slots: int, since: float = 0.0) -> Running:
    return Running(id, team, tuple((node, slots) for node in nodes), "gpu", since)


def owning(nominal: int, borrow: int | None = None, lend: int | None = None) -> TeamShare:
    return TeamShare(quotas={"gpu": Quota(nominal, borrow, lend)})


def placed(decision: Decision) -> list[str]:
    return [placement.job_id for placement in decision.placements]


def test_teams_take_turns_by_what_they_hold() -> None:
    queue = [job(f"a{i}", "a", at=i) for i in range(9)] + [job(f"b{i}", "b", at=100 + i) for i in range(9)]
    assert sorted(placed(decide([node("n", 8)], queue))) == [
        *(f"a{i}" for i in range(4)),
        *(f"b{i}" for i in range(4)),
    ]


def test_weight_parts_the_slots() -> None:
    queue = [job(f"{team}{i}", team, at=i) for team in "ab" for i in range(8)]
    decision = decide([node("n", 8)], queue, teams={"a": TeamShare(weight=3.0)})
    assert sum(id.startswith("a") for id in placed(decision)) == 6


def test_who_has_had_more_goes_later_and_is_not_shut_out() -> None:
    queue = [job(f"{team}{i}", team, at=i) for team in "ab" for i in range(8)]
    decision = decide([node("n", 8)], queue, past={("a", "gpu"): 4.0})
    assert sum(id.startswith("a") for id in placed(decision)) == 2


def test_a_slot_of_a_rare_type_weighs_no_more_than_another_that_would_do() -> None:
    nodes = [Node("rare", "A10", 2, (1,)), node("n", 8)]
    queue = [replace(job(f"{team}{i}", team, at=i), accelerator="any") for team in "ab" for i in range(9)]
    decision = decide(nodes, queue, running=[Running("r", "a", (("rare", 1),), "A10", started_at=0.0)])
    assert sum(id.startswith("a") for id in placed(decision)) == 4


def test_what_a_team_holds_of_one_type_puts_it_back_for_no_other() -> None:
    nodes = [Node("h", "H100", 4, ()), Node("c", "cpu", 4, (3,))]
    running = [Running("r", "a", (("h", 4),), "H100", 0.0), Running("s", "b", (("c", 1),), "cpu", 0.0)]
    queue = [replace(job(team, team), accelerator="cpu") for team in "ba"]
    assert placed(decide(nodes, queue, running=running)) == ["a"]


def test_priority_counts_within_a_team_only() -> None:
    queue = [job("a-low", "a"), job("a-high", "a", priority=9, at=1.0), job("b", "b", at=0.5)]
    assert placed(decide([node("n", 2)], queue)) == ["b", "a-high"]


def test_no_more_is_borrowed_than_the_limit() -> None:
    queue = [job(f"a{i}", "a", at=i) for i in range(8)]
    decision = decide([node("n", 8)], queue, teams={"a": owning(2, borrow=3)})
    assert placed(decision) == ["a0", "a1", "a2", "a3", "a4"]
    assert decision.reasons["a5"] == (
        "needs 1 of type gpu on one node; your team holds 5 of type gpu, and may hold its nominal quota of 2 "
        "and 3 borrowed"
    )


def test_what_is_not_lent_stays_free_for_its_owner() -> None:
    teams = {"owner": owning(6, lend=2), "guest": TeamShare()}
    queue = [job(f"g{i}", "guest", at=i) for i in range(8)]
    decision = decide([node("n", 8)], queue, teams=teams)
    assert len(placed(decision)) == 4
    assert "do not lend them" in decision.reasons["g7"]
    late = [*queue, *(job(f"o{i}", "owner", at=50) for i in range(6))]
    assert sum(id.startswith("o") for id in placed(decide([node("n", 8)], late, teams=teams))) == 6


def test_what_it_does_not_lend_is_kept_from_others_and_not_from_itself() -> None:
    running = [runs("r", "owner", "n", 3), runs("s", "other", "n", 3)]
    decision = decide(
        [node("n", 2)], [job("own", "owner", 2)], running=running, teams={"owner": owning(4, lend=0)}
    )
    assert placed(decision) == ["own"], "4 and 1 borrowed, of all that is left"


def test_a_team_that_takes_its_quota_back_borrows_none_meanwhile() -> None:
    running = [*(runs(f"g{i}", "guest", "m", since=float(i)) for i in range(8)), runs("a", "owner", "n", 3)]
    queue = [job("large", "owner", 8), job("small", "owner", at=1.0), job("late", "guest", at=9.0)]
    decision = decide([node("m", 0), node("n", 5)], queue, running=running, teams={"owner": owning(11)})
    assert {asked.for_job for asked in decision.preemptions} == {"large"}
    assert placed(decision) == ["late"]
    assert decision.reasons["small"] == (
        "needs 1 of type gpu on one node; your team takes its own quota of type gpu back, and borrows none "
        "meanwhile"
    )


def test_its_own_quota_goes_before_what_others_borrow() -> None:
    queue = [*(job(f"g{i}", "guest", at=i) for i in range(8)), job("own", "owner", 8, at=99.0)]
    assert placed(decide([node("n", 8)], queue, teams={"owner": owning(8)})) == ["own"]


def test_the_owner_takes_its_quota_back_from_the_youngest_that_borrowed() -> None:
    running = [runs(f"g{i}", "guest", "n", since=float(i)) for i in range(8)]
    teams = {"owner": owning(4), "guest": owning(4)}
    decision = decide([node("n", 0)], [job("own", "owner", 2)], running=running, teams=teams)
    assert [asked.job_id for asked in decision.preemptions] == ["g7", "g6"]
    assert decision.preemptions[0].for_team == "owner"
    assert decision.reasons["own"] == (
        "needs 2 of type gpu on one node; it is within your team's nominal quota of 4 of type gpu, and 2 on "
        "n are coming free for it"
    )


def test_nobody_is_asked_twice_and_what_comes_free_goes_to_nobody_else() -> None:
    running = [runs(f"g{i}", "guest", "n", since=float(i)) for i in range(7)]
    running = [replace(one, is_leaving=one.started_at >= 6) for one in running]
    queue = [job("own", "owner", 2), job("quick", "guest", at=-1.0)]
    decision = decide([node("n", 1)], queue, running=running, teams={"owner": owning(4)})
    assert (decision.placements, decision.preemptions) == ((), ())


def test_what_is_within_a_quota_is_never_taken() -> None:
    running = [runs(f"g{i}", "guest", "n", since=float(i)) for i in range(8)]
    teams = {"owner": owning(4), "guest": owning(8)}
    decision = decide([node("n", 0)], [job("own", "owner")], running=running, teams=teams)
    assert decision.preemptions == ()


def test_a_team_over_its_quota_takes_nothing_back_and_is_told() -> None:
    running = [*(runs(f"a{i}", "a", "n", since=float(i)) for i in range(5)), runs("b", "b", "n", since=9.0)]
    decision = decide([node("n", 2)], [job("big", "a", 4)], running=running, teams={"a": owning(4)})
    assert decision.preemptions == ()
    assert decision.reasons["big"] == (
        "needs 4 of type gpu on one node; the largest free block is 2; your team is over its nominal quota "
        "of 4 by 1, borrowed"
    )


def test_small_jobs_pass_a_large_one_but_not_where_it_will_run() -> None:
    nodes = [node("late", 6), node("soon", 4)]
    running = [runs("long", "a", "late", 2, left=9000.0), runs("short", "a", "soon", 4, left=60.0)]
    queue = [job("large", "a", 8, at=1.0), *(job(f"s{i}", "a", at=2.0 + i) for i in range(9))]
    decision = decide(nodes, queue, running=running)
    assert {part.node_id for placement in decision.placements for part in placement.parts} == {"late"}
    assert len(decision.placements) == 6
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("large", "soon")]


def test_the_node_is_kept_that_is_free_first_of_all_that_take_work() -> None:
    nodes = [
        node("late", 4),
        replace(node("soon", 4), accelerator="gpu two"),
        replace(node("drained", 0), takes_work=False),
    ]
    running = [
        runs("a", "t", "late", 4, left=900.0),
        Running("b", "t", (("soon", 4),), "gpu two", 0.0, remaining_s=60.0),
        runs("c", "t", "drained", 8, left=1.0),
    ]
    decision = decide(nodes, [job("large", "t", 8)], running=running)
    assert [one.node_id for one in decision.reservations] == ["soon"]


def test_where_nobody_can_say_the_node_is_kept_with_the_fewest_slots_missing() -> None:
    running = [runs("a", "t", "m", 6, left=math.inf), runs("b", "t", "n", 2, left=math.inf)]
    decision = decide([node("m", 2), node("n", 6)], [job("large", "t", 8)], running=running)
    assert [one.node_id for one in decision.reservations] == ["n"]


def test_what_is_kept_for_a_large_job_is_not_borrowed_elsewhere_in_its_place() -> None:
    """Else what its owner does not lend would be all that is left when the node is free at last."""
    running = [runs("r", "other", "m", 3), runs("s", "other", "n", 3, left=9.0)]
    queue = [job("large", "guest", 8), *(job(f"g{i}", "guest", at=1.0 + i) for i in range(5))]
    decision = decide(
        [node("m", 5), node("n", 5)], queue, running=running, teams={"owner": owning(4, lend=0)}
    )
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("large", "m")]
    assert placed(decision) == ["g0"], "4 of n's 5 stay for the owner, as m's are for the large one"


def test_no_node_is_kept_that_waits_for_more_than_jobs_that_end() -> None:
    """One of its slots is dirty, or its GPU ill, for nobody knows how long; the rest is there to be used."""
    running = [runs("long", "a", "busy", 8, left=math.inf)]
    queue = [job("large", "a", 8, at=1.0), *(job(f"s{i}", "a", at=2.0 + i) for i in range(9))]
    decision = decide([node("ill", 7), node("busy", 0)], queue, running=running)
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("large", "busy")]
    assert len(decision.placements) == 7
    alone = decide([node("ill", 7)], queue[:2])
    assert [one.node_id for one in alone.reservations] == ["ill"], "where there is no other"


def test_a_gang_counts_with_the_slots_of_all_its_nodes() -> None:
    nodes, teams = [node("m", 8), node("n", 8)], {"a": owning(1, borrow=4)}
    decision = decide(nodes, [job("gang", "a", 2, nodes=2), job("more", "a", 2, at=1.0)], teams=teams)
    assert placed(decision) == ["gang"]
    assert "your team holds 4 of type gpu" in decision.reasons["more"]
    wide = decide(nodes, [job("wide", "a", 3, nodes=2)], teams=teams)
    assert wide.reasons["wide"].startswith(
        "needs 2 nodes with 3 of type gpu each; your team holds 0 of type gpu"
    )
    running = [gang_runs("g", "a", "m", "n", slots=2)]
    queue = [job(f"{team}{i}", team, at=i) for team in "ab" for i in range(8)]
    shared = decide([node("m", 4), node("n", 4)], queue, running=running)
    assert sum(id.startswith("a") for id in placed(shared)) == 2, "b takes its turns until it has as much"


def test_what_one_team_may_not_hold_or_a_gang_holds_up_no_other_job_of_the_same_size() -> None:
    queue = [job("gang", "a", 4, nodes=3), *(job(f"a{i}", "a", 4, at=i) for i in (1, 2, 3))]
    queue += [job(f"b{i}", "b", 4, at=4 + i) for i in range(3)]
    decision = decide([node(id, 8) for id in "klm"], queue, teams={"a": owning(0, borrow=4)})
    assert sorted(placed(decision)) == ["a1", "b0", "b1", "b2"]
    assert decision.reasons["gang"].startswith("needs 3 nodes with 4 of type gpu each; your team holds")
    assert decision.reasons["a3"].startswith("needs 4 of type gpu on one node; your team holds 4")


def test_a_gang_at_the_head_keeps_its_nodes_and_small_jobs_pass_it_elsewhere() -> None:
    nodes = [node("a", 3), node("b", 2), node("c", 1), node("d", 1)]
    queue = [job("gang", "t", 8, nodes=2, at=1.0), *(job(f"s{i}", "t", at=2.0 + i) for i in range(9))]
    decision = decide(nodes, queue)
    assert sorted(part.node_id for one in decision.placements for part in one.parts) == ["c", "d"]
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("gang", "a"), ("gang", "b")]
    assert decision.reasons["gang"] == "needs 2 nodes with 8 of type gpu each; no node has so many free"


def test_an_owed_gang_takes_back_on_several_nodes_at_once_from_the_youngest() -> None:
    running = [runs(f"{node}{i}", "guest", node, 4, since=at) for at, node, i in BY_AGE]
    nodes = [node(id, 0) for id in "klmn"]
    decision = decide(nodes, [job("own", "owner", 8, nodes=2)], running=running, teams={"owner": owning(16)})
    assert [asked.job_id for asked in decision.preemptions] == ["n1", "l1", "n0", "l0"], "k0, m0 are older"
    assert decision.reasons["own"] == (
        "needs 2 nodes with 8 of type gpu each; it is within your team's nominal quota of 16 of type gpu, "
        "and 8 each on l and n are coming free for it"
    )
    assert [(one.node_id, one.slots) for one in decision.reservations] == [("l", 8), ("n", 8)]


BY_AGE = [
    *((0.0, "k", 0), (1.0, "m", 0), (2.0, "l", 0), (3.0, "n", 0)),
    *((4.0, "k", 1), (5.0, "m", 1), (6.0, "l", 1), (7.0, "n", 1)),
]


def test_nobody_leaves_in_vain_for_a_gang() -> None:
    running = [runs("old", "guest", "m", 4, since=1.0), runs("young", "guest", "m", 4, since=9.0)]
    running.append(runs("elsewhere", "guest", "o", 2, since=8.0))
    nodes = [node("m", 0), node("n", 4), node("o", 3)]
    decision = decide(nodes, [job("own", "owner", 4, nodes=2)], running=running, teams={"owner": owning(8)})
    assert [asked.job_id for asked in decision.preemptions] == ["young"]


def test_what_is_free_for_a_gang_that_waits_for_the_rest_of_its_quota_goes_to_nobody_else() -> None:
    leaving = replace(runs("guest", "guest", "m", 8), is_leaving=True)
    queue = [job("own", "owner", 8, nodes=2), job("quick", "guest", at=-1.0)]
    decision = decide([node("m", 0), node("n", 8)], queue, running=[leaving], teams={"owner": owning(16)})
    assert (decision.placements, decision.preemptions) == ((), ())
    assert decision.reasons["quick"].endswith("there is room, and a job ahead in the queue waits for it")


def test_a_gang_that_borrowed_leaves_all_its_nodes_and_each_owed_job_finds_room_there() -> None:
    running = [gang_runs("guest", "guest", "m", "n", slots=8, since=5.0), runs("old", "guest", "o", 8)]
    queue = [job("own", "owner", 8), job("next", "owner", 8, at=1.0)]
    decision = decide([node(id, 0) for id in "mno"], queue, running=running, teams={"owner": owning(16)})
    assert [asked.job_id for asked in decision.preemptions] == ["guest"]
    assert [(one.job_id, one.node_id) for one in decision.reservations] == [("own", "m"), ("next", "n")]


def test_what_is_within_a_quota_is_not_taken_from_a_gang_either() -> None:
    running = [
        gang_runs("old", "guest", "m", "n", slots=4),
        gang_runs("young", "guest", "m", "n", slots=4, since=1.0),
    ]
    teams = {"owner": owning(8), "guest": owning(8)}
    decision = decide(
        [node("m", 0), node("n", 0)], [job("own", "owner", 4, nodes=2)], running=running, teams=teams
    )
    assert [asked.job_id for asked in decision.preemptions] == ["young"]


def test_a_team_runs_only_on_what_it_may_use() -> None:
    nodes = [node("n", 8), Node("c", "cpu", 8, tuple(range(8)))]
    waiting = replace(job("a", "a"), accelerator="any")
    decision = decide(nodes, [waiting], teams={"a": TeamShare(accelerators=frozenset({"cpu"}))})
    assert decision.placements[0].parts[0].node_id == "c"
    refused = decide(nodes, [job("a", "a")], teams={"a": TeamShare(accelerators=frozenset({"cpu"}))})
    assert refused.reasons["a"].endswith("has an accelerator your team may use: cpu")


@pytest.mark.parametrize(("since", "until", "counts"), [(1e9, 0.0, 4.0), (10.0, 0.0, 2.0), (20.0, 10.0, 1.0)])
def test_a_half_life_ago_counts_half(since: float, until: float, counts: float) -> None:
    assert held_on_average(4, since, until, half_life_s=10.0) == pytest.approx(counts)


def test_the_queue_is_told_in_the_order_of_turns() -> None:
    queue = [*(job(f"a{i}", "a", at=i) for i in range(3)), *(job(f"b{i}", "b", at=9 + i) for i in range(3))]
    nodes = [node("n", 0)]
    told = [turn.job.id for turn in in_order(queue, nodes, running=[runs("r", "a", "n")])]
    assert told == ["b0", "a0", "b1", "a1", "b2", "a2"]
    owning_two = {"a": owning(2)}
    assert [turn.job.id for turn in in_order(queue, nodes, teams=owning_two)][:3] == ["a0", "a1", "a2"]


def test_in_the_queue_a_gang_weighs_as_much_as_it_will_hold() -> None:
    queue = [
        job("gang", "a", 2, nodes=2),
        job("a1", "a", at=1.0),
        *(job(f"b{i}", "b", at=2.0 + i) for i in range(5)),
    ]
    nodes = [node("m", 0), node("n", 0)]
    told = [turn.job.id for turn in in_order(queue, nodes)]
    assert told == ["gang", "b0", "b1", "b2", "b3", "a1", "b4"]
    barred = in_order(queue, nodes, teams={"a": owning(0, borrow=3)})
    assert [turn.job.id for turn in barred if turn.is_barred] == ["gang"]
