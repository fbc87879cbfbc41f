"""The laws of taking a quota back, over clusters that are full of what others have borrowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.fairshare import Decision, decide
from shared.domain.quota import Quota, TeamShare

SLOTS = 8
Scene = tuple[list[Node], list[Running], list[Waiting], dict[str, TeamShare]]


@st.composite
def lent_out(draw: st.DrawFn, *, most_owed: int = 8, gangs: bool = True) -> Scene:
    """Up to four nodes, which guests and a neighbour with a small quota fill, and an owner who comes back.

    Of what is held some is one gang's with what is held of the node before it, and some is leaving already.
    """
    running: list[Running] = []
    nodes = []
    for i in range(draw(st.integers(1, 4))):
        left = SLOTS
        while left and draw(st.integers(0, 7)):
            slots = min(left, draw(st.sampled_from((1, 1, 2, 3, 4))))
            left -= slots
            last = running[-1] if running else None
            on, began, id = ((f"n{i}", slots),), draw(st.integers(0, 30)), f"r{len(running)}"
            if gangs and last and last.held[-1][0] != on[0][0] and draw(st.integers(0, 2)) == 0:
                running.pop()
                on, began, id = (*last.held, *on), int(last.started_at), last.id
            team, leaves = (
                draw(st.sampled_from(("guest", "guest", "neighbour"))),
                draw(st.integers(0, 6)) == 0,
            )
            running.append(Running(id, team, on, "gpu", float(began), is_leaving=leaves))
        nodes.append(Node(f"n{i}", "gpu", SLOTS, tuple(range(left))))
    queue = [
        Waiting(f"q{i}", (0, float(i), f"q{i}"), devices, "any", n_nodes, team="owner")
        for i, (devices, n_nodes) in enumerate(
            draw(
                st.lists(
                    st.tuples(
                        st.sampled_from((1, 1, 2, 2, 3, 4, 6, 8)),
                        st.sampled_from((1, 1, 2) if gangs else (1,)),
                    ),
                    min_size=1,
                    max_size=most_owed,
                )
            )
        )
    ]
    quotas = {"owner": draw(st.integers(4, 24)), "neighbour": draw(st.integers(0, 6))}
    teams = {team: TeamShare(quotas={"gpu": Quota(nominal)}) for team, nominal in quotas.items()}
    return nodes, running, queue, teams


def borrowed(running: Iterable[Running], teams: dict[str, TeamShare]) -> list[Running]:
    """What reaches beyond its team's quota, as the jobs were placed; the oldest first."""
    held: Counter[str] = Counter()
    found = []
    for job in sorted(
        (one for one in running if not one.is_leaving), key=lambda one: (one.started_at, one.id)
    ):
        held[job.team] += sum(slots for _, slots in job.held)
        nominal = teams[job.team].quotas["gpu"].nominal if job.team in teams else 0
        if held[job.team] > nominal:
            found.append(job)
    return found


def coming_free(nodes: list[Node], decision: Decision, going: Iterable[Running]) -> Counter[str]:
    """On each node: what is free after the pass, and what those hold who leave."""
    coming = Counter({node.id: len(node.free_slots) for node in nodes})
    for placed in decision.placements:
        coming.subtract({part.node_id: len(part.slots) for part in placed.parts})
    for job in going:
        coming.update(dict(job.held))
    return coming


def kept_for_owed(nodes: list[Node], decision: Decision) -> Counter[str]:
    kept = Counter({node.id: 0 for node in nodes})
    for one in decision.reservations:
        if "coming free" in decision.reasons[one.job_id]:
            kept[one.node_id] += one.slots
    return kept


@settings(deadline=None)
@given(lent_out())
def test_only_what_was_borrowed_goes_and_what_comes_free_is_enough(scene: Scene) -> None:
    nodes, running, queue, teams = scene
    decision = decide(nodes, queue, running=running, teams=teams)
    asked = [one.job_id for one in decision.preemptions]
    assert len(asked) == len(set(asked))
    assert set(asked) <= {job.id for job in borrowed(running, teams)}
    going = [job for job in running if job.is_leaving or job.id in asked]
    coming = coming_free(nodes, decision, going)
    assert all(slots <= coming[node] for node, slots in kept_for_owed(nodes, decision).items())
    jobs = {job.id: job for job in queue}
    had = sum(placed.n_slots for placed in decision.placements)
    owed = {one.for_job for one in decision.preemptions}
    had += sum(jobs[id].devices_per_node * jobs[id].nodes for id in owed)
    assert not owed or had <= teams["owner"].quotas["gpu"].nominal


@settings(deadline=None)
@given(lent_out(most_owed=1))
def test_nobody_leaves_in_vain(scene: Scene) -> None:
    nodes, running, queue, teams = scene
    decision = decide(nodes, queue, running=running, teams=teams)
    asked = {one.job_id for one in decision.preemptions}
    going = [job for job in running if job.is_leaving or job.id in asked]
    coming, (job,) = coming_free(nodes, decision, going), queue
    for leaves in (one for one in going if one.id in asked):
        without = coming - Counter(dict(leaves.held))
        n_enough = sum(without[node.id] >= job.devices_per_node for node in nodes)
        assert n_enough < job.nodes, leaves


@settings(deadline=None)
@given(lent_out(most_owed=1, gangs=False))
def test_a_job_takes_back_where_the_oldest_that_must_go_is_the_youngest(scene: Scene) -> None:
    nodes, running, queue, teams = scene
    (job,) = queue
    decision = decide(nodes, queue, running=running, teams=teams)
    may_go = borrowed(running, teams)
    free = coming_free(nodes, Decision((), {}), (one for one in running if one.is_leaving))
    oldest_by_node = []
    for node in nodes:
        missing = job.devices_per_node - free[node.id]
        lent = [one for one in reversed(may_go) if one.held[0][0] == node.id]
        if missing <= 0:
            oldest_by_node.append(float("inf"))
        elif sum(one.slots for one in lent) >= missing:
            oldest_by_node.append(_oldest_of_the_youngest(lent, missing))
    went = [one.started_at for one in running if one.id in {asked.job_id for asked in decision.preemptions}]
    is_owed = job.devices_per_node <= teams["owner"].quotas["gpu"].nominal
    assert bool(went) == (is_owed and bool(oldest_by_node) and max(oldest_by_node) < float("inf"))
    if went:
        assert min(went) == max(oldest_by_node)


def _oldest_of_the_youngest(lent: list[Running], missing: int) -> float:
    """`lent`: the youngest first. Those stay, the oldest first, without whom there is enough."""
    leave = []
    for one in lent:
        if missing <= 0:
            break
        leave.append(one)
        missing -= one.slots
    for one in reversed(leave):
        if one.slots <= -missing:
            leave.remove(one)
            missing += one.slots
    return min(one.started_at for one in leave)
