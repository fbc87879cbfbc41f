"""The simulated cluster, by clusters so small that each second can be told by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.quota import Quota, TeamShare

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _cluster_events import Clock, Hold, Past, Record, Simulation
from _cluster_figures import fair_parts, held_in, placed_of_possible, shares, utilisation, waits
from _cluster_load import Host, Job, Wanted, apportioned, read_hosts, read_tasks, replayed
from _cluster_packing import first_fit_decreasing
from _cluster_policies import Policy

ONE_LINE = Policy("first come, first served", knows_teams=False, knows_priority=False)


def lived(jobs: list[Job], until_s: float, policy: Policy = ONE_LINE) -> Record:
    """One host of two slots, and a pass every ten seconds."""
    clock = Clock(pass_s=10.0, half_life_s=1000.0, until_s=until_s)
    return Simulation([Host("n", "gpu", 2)], jobs, policy, clock).run()


def test_jobs_are_placed_at_passes_and_hold_their_slots_for_as_long_as_they_last() -> None:
    jobs = [Job("a", "t", 0.0, 1, 15.0), Job("b", "t", 3.0, 2, 20.0), Job("c", "t", 4.0, 1, 5.0)]
    record = lived(jobs, 100.0)
    assert [(hold.job_id, hold.slots, hold.since, hold.until) for hold in record.holds] == [
        ("a", 1, 0.0, 15.0),
        ("b", 2, 20.0, 40.0),
        ("c", 1, 40.0, 45.0),
    ]
    assert [(one.at, one.placed, one.could_place, one.n_waiting) for one in record.passes] == [
        (0.0, 1, 1, 1),
        (10.0, 0, 1, 2),
        (20.0, 2, 2, 2),
        (40.0, 1, 1, 1),
    ]
    assert utilisation(record, n_slots=2, until_s=100.0) == pytest.approx(100 * (15 + 40 + 5) / 200)
    assert placed_of_possible(record.passes) == pytest.approx(80.0)


def test_a_job_that_is_never_placed_has_waited_until_the_end() -> None:
    jobs = [Job("a", "t", 0.0, 2, 500.0), Job("b", "t", 30.0, 2, 5.0)]
    record = lived(jobs, 100.0)
    assert waits(record, jobs, 100.0)[1, 2][0] == pytest.approx((0 + 70) / 2)
    assert [(hold.job_id, hold.until) for hold in record.holds] == [("a", 100.0)]


def test_what_was_borrowed_is_left_with_a_checkpoint_and_goes_on_later() -> None:
    owner = Policy("quotas", True, True, {"owner": TeamShare(quotas={"gpu": Quota(2)})})
    guests = [Job(f"g{i}", "guest", 0.0, 1, 1000.0) for i in range(2)]
    record = lived([*guests, Job("own", "owner", 15.0, 1, 10.0)], 2000.0, owner)
    assert sorted((hold.job_id, hold.since, hold.until) for hold in record.holds) == [
        ("g0", 0.0, 1000.0),
        ("g1", 0.0, 80.0),
        ("g1", 110.0, 110.0 + 1000.0 - 20.0),
        ("own", 80.0, 90.0),
    ]
    assert record.n_preempted == 1


def test_the_past_fades_by_half_in_a_half_life() -> None:
    past = Past(half_life_s=10.0)
    past.change(("t", "gpu"), 4, 0.0)
    assert past.at(10.0) == {("t", "gpu"): pytest.approx(2.0)}
    past.change(("t", "gpu"), -4, 10.0)
    assert past.at(20.0) == {("t", "gpu"): pytest.approx(1.0)}


def test_who_wants_less_than_its_part_leaves_the_rest_to_those_that_wait() -> None:
    held, weights = {"a": 50.0, "b": 30.0, "c": 20.0}, {"a": 1.0, "b": 1.0, "c": 2.0}
    assert fair_parts(held, weights, {"a", "b"}) == pytest.approx({"a": 40.0, "b": 40.0, "c": 20.0})
    assert fair_parts(held, weights, {"a", "b", "c"}) == pytest.approx({"a": 25.0, "b": 25.0, "c": 50.0})
    grabbed = {"a": 10.0, "b": 10.0, "c": 80.0}
    assert fair_parts(grabbed, weights, {"a", "b"})["a"] == pytest.approx(25.0), "c had more than its part"


@pytest.mark.parametrize(("knows_teams", "errors"), [(True, [0.0, 0.0]), (False, [25.0, -25.0])])
def test_the_share_error_is_what_was_held_beside_what_was_due(knows_teams: bool, errors: list[float]) -> None:
    weights = {"a": 3.0, "b": 1.0}
    policy = Policy("", knows_teams, False, {team: TeamShare(weight) for team, weight in weights.items()})
    jobs = [Job(f"{team}{i:03}", team, 0.0, 1, 100.0) for team in "ab" for i in range(200)]
    clock = Clock(pass_s=10.0, half_life_s=500.0, until_s=1000.0)
    record = Simulation([Host("n", "gpu", 8)], jobs, policy, clock).run()
    found = shares(record, jobs, weights, 8, clock)
    assert [(one.team, one.window) for one in found] == [("a", (500.0, 1000.0)), ("b", (500.0, 1000.0))]
    assert [one.fair for one in found] == pytest.approx([75.0, 25.0])
    assert [one.error for one in found] == pytest.approx(errors, abs=1e-9)


def test_who_had_nothing_waiting_once_or_asks_for_more_than_its_part_has_no_share_error() -> None:
    jobs = [Job(f"a{i:03}", "a", 1.0, 1, 100.0) for i in range(100)]
    jobs += [Job("b", "b", 0.0, 1, 100.0), Job("c", "c", 1.0, 8, 100.0)]
    clock = Clock(pass_s=10.0, half_life_s=500.0, until_s=1000.0)
    record = Simulation([Host("n", "gpu", 8)], jobs, Policy("", False, False), clock).run()
    found = shares(record, jobs, {"a": 1.0, "b": 1.0, "c": 1.0}, 8, clock)
    assert [one.team for one in found] == ["a"]


def test_slots_are_counted_for_as_much_of_a_window_as_they_were_held() -> None:
    holds = [Hold("j", "t", "gpu", 2, since=0.0, until=15.0), Hold("k", "t", "gpu", 1, 12.0, 40.0)]
    assert held_in(holds, (10.0, 20.0)) == {"t": pytest.approx((2 * 5 + 8) / 10)}


def test_first_fit_decreasing_places_the_largest_first_and_only_what_is_permitted() -> None:
    nodes = [Node("m", "gpu", 8, (0, 1, 2, 3, 4)), Node("n", "gpu", 8, (0, 1, 2))]
    queue = [
        Waiting(f"{team}{size}", (0, 0.0, str(size)), size, "any", team=team)
        for team, size in (("a", 1), ("a", 3), ("b", 4), ("b", 4))
    ]
    running = [Running("r", "a", (("m", 3),), "gpu", 0.0)]
    assert first_fit_decreasing(nodes, queue, running, {}) == 4 + 3 + 1
    barred = {"b": TeamShare(quotas={"gpu": Quota(0, borrowing_limit=0)})}
    assert first_fit_decreasing(nodes, queue, running, barred) == 3 + 1


def test_first_fit_decreasing_places_gangs_whole_on_nodes_of_one_type() -> None:
    nodes = [Node(f"n{i}", "gpu", 8, tuple(range(free))) for i, free in enumerate((4, 1, 3))]
    nodes.append(Node("other", "T4", 8, tuple(range(8))))

    def gang(devices: int, n_nodes: int) -> Waiting:
        return Waiting(f"{devices}x{n_nodes}", (0, 0.0, ""), devices, "any", n_nodes)

    assert first_fit_decreasing(nodes, [gang(3, 2), gang(1, 2)], [], {}) == 6 + 2
    assert first_fit_decreasing(nodes, [gang(4, 2), gang(3, 3)], [], {}) == 0, "the T4s are on one node"
    assert first_fit_decreasing(nodes, [gang(3, 2)], [], {"": TeamShare(quotas={"gpu": Quota(0, 5)})}) == 0


def test_a_gang_holds_its_slots_on_all_nodes_from_and_to_the_same_second() -> None:
    jobs = [Job("a", "t", 0.0, 1, 15.0), Job("gang", "t", 3.0, 2, 20.0, nodes=2), Job("b", "t", 4.0, 2, 5.0)]
    clock = Clock(pass_s=10.0, half_life_s=1000.0, until_s=100.0)
    record = Simulation([Host("m", "gpu", 2), Host("n", "gpu", 2)], jobs, ONE_LINE, clock).run()
    assert [(hold.job_id, hold.slots, hold.since, hold.until) for hold in record.holds] == [
        ("a", 1, 0.0, 15.0),
        ("gang", 4, 20.0, 40.0),
        ("b", 2, 40.0, 45.0),
    ]
    assert set(waits(record, jobs, 100.0)) == {(1, 1), (1, 2), (2, 2)}


def test_a_trace_is_replayed_until_the_wanted_load_is_asked_for(tmp_path: Path) -> None:
    nodes, tasks = tmp_path / "nodes.csv", tmp_path / "tasks.csv"
    nodes.write_text("sn,gpu,model\nn0,4,T4\nn1,0,\n")
    tasks.write_text(
        "name,num_gpu,gpu_spec,qos,creation_time,scheduled_time,deletion_time\n"
        "p0,1,,BE,0,10,110\np1,2,T4,LS,50,60,160\np2,0,,LS,60,60,160\np3,1,,LS,900000,,\n"
    )
    assert read_hosts(nodes) == [Host("n0", "T4", 4)]
    wanted = Wanted(teams={"t": 1.0}, load=0.5, until_s=1000.0, seed=1)
    jobs = replayed(read_tasks(tasks), 4, wanted)
    assert [(job.devices, job.accelerator, job.priority, job.lasts_s) for job in jobs[:3]] == [
        (1, "cuda", 0, 100.0),
        (2, "T4", 5, 100.0),
        (1, "cuda", 5, 100.0),
    ]
    assert sum(job.devices * job.lasts_s for job in jobs) == pytest.approx(0.5 * 4 * 1000.0)
    assert [job.submitted_at for job in jobs] == sorted(job.submitted_at for job in jobs)


def test_other_columns_are_refused_with_those_that_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "nodes.csv"
    path.write_text("host,gpus\nn0,4\n")
    with pytest.raises(ValueError, match="has the columns host, gpus; wanted are sn, model, gpu"):
        read_hosts(path)


def test_quotas_add_up_to_the_whole() -> None:
    assert apportioned(2, {"a": 1.0, "b": 1.0, "c": 1.0}) == {"a": 1, "b": 1, "c": 0}
    assert apportioned(7, {"a": 2.0, "b": 1.0}) == {"a": 5, "b": 2}
