"""The order of turns in which the queue is told is the one in which the scheduler places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.fairshare import decide
from shared.domain.queue_order import InTurn, in_order
from shared.domain.quota import Quota, TeamShare

FREE = 20
NODES = [Node("a", "cpu", FREE, tuple(range(FREE)))]


def job(id: str, team: str, *, at: float = 0.0, priority: int = 0, accelerator: str = "any") -> Waiting:
    return Waiting(id=id, order=(-priority, at, id), devices_per_node=1, accelerator=accelerator, team=team)


def turns(
    *queue: Waiting,
    teams: Mapping[str, TeamShare] | None = None,
    running: Sequence[Running] = (),
    past: Mapping[tuple[str, str], float] | None = None,
) -> list[InTurn]:
    return in_order(queue, NODES, running=running, teams=teams, past=past)


def ids(found: Sequence[InTurn]) -> list[str]:
    return [turn.job.id for turn in found]


def test_within_a_team_the_order_is_priority_then_age_then_the_id() -> None:
    queue = (job("b", "x", at=1), job("a", "x", at=1), job("c", "x", at=0.5), job("d", "x", at=9, priority=5))
    assert ids(turns(*queue)) == ["d", "c", "a", "b"]


def test_teams_take_turns_whoever_came_first() -> None:
    queue = [job(f"x{n}", "x", at=n) for n in range(4)] + [job(f"y{n}", "y", at=10 + n) for n in range(2)]
    assert ids(turns(*queue)) == ["x0", "y0", "x1", "y1", "x2", "x3"]
    weights = {"x": TeamShare(weight=2.0)}
    assert ids(turns(*queue, teams=weights)) == ["x0", "y0", "x1", "x2", "y1", "x3"]


def test_who_has_held_much_comes_later_and_who_is_owed_comes_first() -> None:
    queue = (job("x", "x", at=0), job("y", "y", at=1))
    assert ids(turns(*queue, past={("x", "cpu"): 5.0})) == ["y", "x"]
    assert ids(turns(*queue, teams={"y": TeamShare(quotas={"cpu": Quota(nominal=1)})})) == ["y", "x"]


def test_a_job_that_can_run_nowhere_gets_ahead_of_nobody_by_that() -> None:
    queue = (job("nowhere", "x", at=0, accelerator="cuda"), job("y", "y", at=1))
    assert ids(turns(*queue, running=[Running("r", "x", (("a", 4),), "cpu", 0.0)])) == ["y", "nowhere"]


def test_a_job_beyond_what_its_team_may_hold_is_barred_in_its_place() -> None:
    teams = {"x": TeamShare(quotas={"cpu": Quota(nominal=1, borrowing_limit=1)})}
    found = turns(*(job(f"x{n}", "x", at=n) for n in range(3)), teams=teams)
    assert [turn.is_barred for turn in found] == [False, False, True]
    nowhere = turns(job("gpu", "x", accelerator="cuda"), teams=teams)
    assert nowhere == [InTurn(job("gpu", "x", accelerator="cuda"))], "there is no node, whatever is allowed"


shares = st.builds(
    lambda weight, nominal, limit: TeamShare(weight, {"cpu": Quota(nominal, limit)}),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.integers(0, 4),
    st.none() | st.integers(0, 4),
)
queues = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 3), st.integers(0, 2)), max_size=FREE).map(
    lambda drawn: [job(f"{n}", team, at=at, priority=first) for n, (team, at, first) in enumerate(drawn)]
)


@given(
    queues,
    st.dictionaries(st.sampled_from("xyz"), shares),
    st.dictionaries(st.tuples(st.sampled_from("xyz"), st.just("cpu")), st.integers(0, 9).map(float)),
)
def test_where_there_is_room_for_all_jobs_are_placed_in_this_order(
    queue: list[Waiting], teams: dict[str, TeamShare], past: dict[tuple[str, str], float]
) -> None:
    found = turns(*queue, teams=teams, past=past)
    placed = [placement.job_id for placement in decide(NODES, queue, teams=teams, past=past).placements]
    assert placed == [turn.job.id for turn in found if not turn.is_barred]
    assert sorted(ids(found)) == sorted(one.id for one in queue)
    assert found == turns(*reversed(queue), teams=teams, past=past)
