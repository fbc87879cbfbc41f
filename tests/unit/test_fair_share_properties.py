"""The laws of a scheduling pass, over drawn clusters, queues and quotas, and over many passes in a row."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.cluster import Node, Running, Waiting, could_ever_run
from shared.domain.fairshare import Decision, decide
from shared.domain.quota import NO_SHARE, Books, Quota, TeamShare
from shared.domain.reclaiming import borrowed

TEAMS = ("a", "b", "c")
TYPES = ("cpu", "H100", "A100")
GIB = 2**30
# Some differ by less than what jobs are rounded to.
MEMORY = st.none() | st.sampled_from((GIB, 15 * GIB + 1, 15 * GIB + 2, 79 * GIB + GIB // 2, 80 * GIB))


@dataclass
class Scene:
    """A cluster in the middle of its work."""

    nodes: list[Node]
    queue: list[Waiting]
    running: list[Running]
    teams: dict[str, TeamShare]
    past: dict[tuple[str, str], float]

    def decide(self) -> Decision:
        return decide(self.nodes, self.queue, running=self.running, teams=self.teams, past=self.past)


@st.composite
def quotas(draw: st.DrawFn) -> Quota:
    nominal = draw(st.integers(0, 8))
    limit = draw(st.none() | st.integers(0, 6))
    return Quota(nominal, limit, draw(st.none() | st.integers(0, nominal)))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Up to six nodes of up to eight slots, part of which is held, and up to twenty jobs that wait.

    Of what is held, some is one gang's with what is held of the node before it.
    """
    nodes: list[Node] = []
    running: list[Running] = []
    for i in range(draw(st.integers(1, 6))):
        kind, n_slots = draw(st.sampled_from((*TYPES, "H100", "H100"))), draw(st.integers(1, 8))
        free = list(range(n_slots))
        while free and draw(st.booleans()):
            slots = draw(st.integers(1, len(free)))
            del free[:slots]
            last = running[-1] if running else None
            if last and last.accelerator == kind and last.held[-1][0] != f"n{i}" and draw(st.booleans()):
                running[-1] = replace(last, held=(*last.held, (f"n{i}", slots)))
                continue
            running.append(
                Running(
                    id=f"r{len(running)}",
                    team=draw(st.sampled_from(TEAMS)),
                    held=((f"n{i}", slots),),
                    accelerator=kind,
                    started_at=draw(st.floats(0, 100)),
                    is_leaving=draw(st.booleans()),
                    remaining_s=draw(st.floats(0, 1000)),
                )
            )
        takes_work = draw(st.integers(0, 5)) > 0
        nodes.append(
            Node(
                f"n{i}",
                kind,
                n_slots,
                tuple(free) if takes_work else (),
                takes_work=takes_work,
                memory_bytes=draw(MEMORY),
            )
        )
    queue = [
        Waiting(
            id=f"q{i}",
            order=(-draw(st.integers(0, 2)), float(draw(st.integers(0, 50))), f"q{i}"),
            devices_per_node=draw(st.sampled_from((1, 1, 2, 4, 8))),
            accelerator=draw(st.sampled_from(("any", "cpu", "cuda", "H100"))),
            nodes=draw(st.sampled_from((1, 1, 2, 3))),
            team=draw(st.sampled_from(TEAMS)),
            memory_bytes=draw(MEMORY),
        )
        for i in range(draw(st.integers(0, 20)))
    ]
    teams = draw(
        st.dictionaries(
            st.sampled_from(TEAMS),
            st.builds(
                TeamShare,
                weight=st.sampled_from((0.5, 1.0, 3.0)),
                quotas=st.dictionaries(st.sampled_from(TYPES), quotas()),
                accelerators=st.none() | st.frozensets(st.sampled_from(TYPES), min_size=1),
            ),
        )
    )
    past = draw(st.dictionaries(st.tuples(st.sampled_from(TEAMS), st.sampled_from(TYPES)), st.floats(0, 8)))
    return Scene(nodes, queue, running, teams, past)


def after(scene: Scene, decision: Decision) -> tuple[list[Node], list[Running]]:
    """The cluster once the placements are made."""
    taken: dict[str, set[int]] = {node.id: set() for node in scene.nodes}
    jobs = {job.id: job for job in scene.queue}
    kinds = {node.id: node.accelerator for node in scene.nodes}
    running = list(scene.running)
    for placed in decision.placements:
        for part in placed.parts:
            assert taken[part.node_id].isdisjoint(part.slots), "a slot is given once"
            taken[part.node_id].update(part.slots)
        job, kind = jobs[placed.job_id], kinds[placed.parts[0].node_id]
        on = tuple((part.node_id, len(part.slots)) for part in placed.parts)
        running.append(Running(job.id, job.team, on, kind, 1000.0))
    nodes = []
    for node in scene.nodes:
        assert taken[node.id] <= set(node.free_slots), "only free slots are given"
        left = tuple(slot for slot in node.free_slots if slot not in taken[node.id])
        nodes.append(replace(node, free_slots=left))
    return nodes, running


@settings(deadline=None)
@given(scenes())
def test_each_job_is_placed_whole_where_it_can_run_or_waits_for_a_reason(scene: Scene) -> None:
    decision = scene.decide()
    after(scene, decision)
    nodes, jobs = {node.id: node for node in scene.nodes}, {job.id: job for job in scene.queue}
    placed = [placement.job_id for placement in decision.placements]
    assert sorted([*placed, *decision.reasons]) == sorted(jobs)
    for placement in decision.placements:
        job = jobs[placement.job_id]
        on = [nodes[part.node_id] for part in placement.parts]
        allowed = scene.teams.get(job.team, NO_SHARE).accelerators
        assert len(placement.parts) == len({node.id for node in on}) == job.nodes
        assert {len(part.slots) for part in placement.parts} == {job.devices_per_node}
        assert all(could_ever_run(job, node) for node in on)
        assert len({node.accelerator for node in on}) == 1
        assert allowed is None or on[0].accelerator in allowed


@settings(deadline=None)
@given(scenes())
def test_no_team_comes_to_hold_more_than_quota_and_borrowing_limit(scene: Scene) -> None:
    decision = scene.decide()
    _, running = after(scene, decision)
    before, now = held(scene.running), held(running)
    for (team, kind), slots in now.items():
        quota = scene.teams.get(team, NO_SHARE).quotas.get(kind, Quota())
        if slots > before[team, kind] and quota.borrowing_limit is not None:
            assert slots <= quota.nominal + quota.borrowing_limit


@settings(deadline=None)
@given(
    st.integers(0, 8),
    st.integers(0, 6),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=12),
)
def test_where_there_is_room_for_all_gangs_a_team_holds_its_limit_and_no_more(
    nominal: int, limit: int, sizes: list[tuple[int, int]]
) -> None:
    nodes = [Node(f"n{i}", "cpu", 48, tuple(range(48))) for i in range(3)]
    queue = [
        Waiting(f"q{i:02}", (0, 0.0, f"q{i:02}"), devices, "any", n_nodes, team="a")
        for i, (devices, n_nodes) in enumerate(sizes)
    ]
    decision = decide(nodes, queue, teams={"a": TeamShare(quotas={"cpu": Quota(nominal, limit)})})
    total, most = sum(placed.n_slots for placed in decision.placements), nominal + limit
    left = [devices * n for job, (devices, n) in zip(queue, sizes, strict=True) if job.id in decision.reasons]
    assert total <= most
    for place, slots in enumerate(left):
        ahead = [older for older in left[:place] if older <= most]
        waits_in_vain = total + slots <= most and all(total + older + slots <= most for older in ahead)
        assert not waits_in_vain, "the limit would take it, beside what is ahead and could ever be had"


@settings(deadline=None)
@given(scenes())
def test_who_borrows_leaves_free_what_others_do_not_lend(scene: Scene) -> None:
    """Or what comes free for them: that is kept on its nodes, free already or not."""
    decision = scene.decide()
    nodes, running = after(scene, decision)
    before, now = held(scene.running), held(running)
    promised = taken_back(scene, decision)
    for (team, kind), slots in now.items():
        if slots <= max(
            before[team, kind], scene.teams.get(team, NO_SHARE).quotas.get(kind, Quota()).nominal
        ):
            continue
        free = sum(len(node.free_slots) for node in nodes if node.accelerator == kind)
        idle = sum(
            max(0, unlent(share.quotas.get(kind, Quota())) - now[owner, kind] - promised[owner, kind])
            for owner, share in scene.teams.items()
            if owner != team
        )
        assert free >= idle


def unlent(quota: Quota) -> int:
    """What nobody else gets of it."""
    return 0 if quota.lending_limit is None else quota.nominal - quota.lending_limit


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=2),
    st.integers(0, 4),
    st.integers(0, 6),
)
def test_small_jobs_borrow_all_that_is_lent_and_no_more(
    sizes: list[int], owners: list[tuple[int, int, int]], wanted: int, others: int
) -> None:
    """Owners by nominal quota, what they lend of it and what they hold; the last one wants some more.

    Somebody else holds `others`.
    """
    nodes, running, teams = [], [], {}
    free = [(f"n{i}", slot) for i, slots in enumerate(sizes) for slot in range(slots)]
    for i, (nominal, lends, holds) in enumerate(owners):
        teams[f"owner{i}"] = TeamShare(quotas={"gpu": Quota(nominal, None, min(nominal, lends))})
        for n in range(min(nominal, holds, len(free))):
            running.append(Running(f"r{i}-{n}", f"owner{i}", ((free.pop()[0], 1),), "gpu", float(n)))
    for n in range(min(others, len(free))):
        running.append(Running(f"other{n}", "other", ((free.pop()[0], 1),), "gpu", float(n)))
    for i, slots in enumerate(sizes):
        open = tuple(slot for node, slot in free if node == f"n{i}")
        nodes.append(Node(f"n{i}", "gpu", slots, open))
    queue = [Waiting(f"g{i:02}", (0, float(i), f"g{i:02}"), 1, "any", team="guest") for i in range(40)]
    last = f"owner{len(owners) - 1}"
    queue += [Waiting(f"o{i}", (0, 99.0, f"o{i}"), 1, "any", team=last) for i in range(wanted)]
    decision = decide(nodes, queue, running=running, teams=teams)
    held_now = held(running)
    for placement in decision.placements:
        held_now["guest" if placement.job_id.startswith("g") else last, "gpu"] += 1
    quotas = {owner: share.quotas["gpu"] for owner, share in teams.items()}
    kept = sum(max(0, unlent(quota) - held_now[owner, "gpu"]) for owner, quota in quotas.items())
    left = len(free) - len(decision.placements)
    assert left >= kept or not held_now["guest", "gpu"]
    assert left <= kept, "and all else is borrowed"
    is_never_lent = sum(sizes) <= held_now["guest", "gpu"] + sum(map(unlent, quotas.values()))
    told = {"at any time" in reason for id, reason in decision.reasons.items() if id.startswith("g")}
    assert told == {is_never_lent and any(map(unlent, quotas.values()))}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.integers(1, 8)), min_size=1, max_size=6),
    st.tuples(*(st.sampled_from((0.5, 1.0, 3.0)) for _ in TEAMS)),
)
def test_teams_whose_jobs_run_anywhere_part_all_types_by_weight_to_a_slot(
    sizes: list[tuple[str, int]], weights: tuple[float, ...]
) -> None:
    nodes = [Node(f"n{i}", kind, slots, tuple(range(slots))) for i, (kind, slots) in enumerate(sizes)]
    n_slots = sum(slots for _, slots in sizes)
    queue = [
        Waiting(f"{team}{i}", (0, float(i), f"{team}{i}"), 1, "any", team=team)
        for team in TEAMS
        for i in range(n_slots)
    ]
    teams = {team: TeamShare(weight) for team, weight in zip(TEAMS, weights, strict=True)}
    got = Counter(placed.job_id[0] for placed in decide(nodes, queue, teams=teams).placements)
    assert got.total() == n_slots
    for one in TEAMS:
        for other in TEAMS:
            if got[one]:
                assert (got[one] - 1) / teams[one].weight <= got[other] / teams[other].weight


def taken_back(scene: Scene, decision: Decision) -> Counter[tuple[str, str]]:
    """(team, type) -> the slots that are kept for its jobs which take their own quota back."""
    teams = {job.id: job.team for job in scene.queue}
    kinds = {node.id: node.accelerator for node in scene.nodes}
    found: Counter[tuple[str, str]] = Counter()
    for one in decision.reservations:
        if "coming free" in decision.reasons[one.job_id]:
            found[teams[one.job_id], kinds[one.node_id]] += one.slots
    return found


def held(running: list[Running]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for job in running:
        found[job.team, job.accelerator] += job.slots
    return found


@settings(deadline=None)
@given(scenes())
def test_no_slot_is_idle_that_a_waiting_and_permitted_job_fits(scene: Scene) -> None:
    """But for slots that are kept: by what takes its quota back, and by one job an accelerator type.

    A job is not permitted what an older one of its team waits for, and could not have beside it.
    """
    decision = scene.decide()
    nodes, running = after(scene, decision)
    taking_back = {
        one.job_id for one in decision.reservations if "coming free" in decision.reasons[one.job_id]
    }
    heads = [one for one in decision.reservations if one.job_id not in taking_back]
    kinds = {node.id: node.accelerator for node in nodes}
    kept_for = {(kinds[one.node_id], one.job_id) for one in heads}
    assert len({kind for kind, _ in kept_for}) == len(kept_for), "one a type"
    kept = Counter({node.id: 0 for node in nodes})
    for one in decision.reservations:
        kept[one.node_id] += one.slots
    books = Books(nodes, running, scene.teams)
    owed = {team for team, slots in taken_back(scene, decision).items() if slots}
    for job in scene.queue:
        if job.id not in decision.reasons or job.id in taking_back:
            continue
        allowed = scene.teams.get(job.team, NO_SHARE).accelerators
        with_room = Counter(
            node.accelerator
            for node in nodes
            if could_ever_run(job, node) and len(node.free_slots) - kept[node.id] >= job.devices_per_node
        )
        for kind, n_nodes in with_room.items():
            if (
                n_nodes < job.nodes
                or (allowed is not None and kind not in allowed)
                or (job.team, kind) in owed
            ):
                continue
            claim = books.claim(job.team, kind, job.devices_per_node * job.nodes)
            # Then what is kept for a job is not there to be borrowed from what others do not lend.
            is_lent_in_part = any(
                unlent(share.quotas.get(kind, Quota()))
                for team, share in scene.teams.items()
                if team != job.team
            )
            set_aside = is_lent_in_part and any(kinds[id] == kind for id, n in kept.items() if n)
            is_behind = any(
                not fits_beside(books, job, older, kind) for older in older_left(scene, decision, job)
            )
            assert not claim.is_granted or set_aside or is_behind, (job, kind)


def older_left(scene: Scene, decision: Decision, job: Waiting) -> list[Waiting]:
    """The jobs of its team that wait and were to go first."""
    return [
        one
        for one in scene.queue
        if one.id in decision.reasons and one.team == job.team and one.order < job.order
    ]


def fits_beside(books: Books, job: Waiting, older: Waiting, kind: str) -> bool:
    """Whether its team could have both, and of its own quota where part of that is unused."""
    quota, used = books.quota(job.team, kind), books.used[job.team, kind]
    slots, theirs = job.devices_per_node * job.nodes, older.devices_per_node * older.nodes
    if used < quota.nominal and theirs <= quota.nominal:
        return used + slots + theirs <= quota.nominal
    return not books.claim(job.team, kind, slots + theirs).is_barred


@settings(deadline=None)
@given(scenes())
def test_what_is_kept_for_a_job_is_not_enough_for_it_yet(scene: Scene) -> None:
    decision = scene.decide()
    nodes, running = after(scene, decision)
    jobs, books = {job.id: job for job in scene.queue}, Books(nodes, running, scene.teams)
    free = {node.id: len(node.free_slots) for node in nodes}
    kinds = {node.id: node.accelerator for node in nodes}
    for job_id in {one.job_id for one in decision.reservations}:
        job, mine = jobs[job_id], [one for one in decision.reservations if one.job_id == job_id]
        (kind,) = {kinds[one.node_id] for one in mine}
        assert {one.slots for one in mine} == {job.devices_per_node}
        assert len({one.node_id for one in mine}) == len(mine) == job.nodes
        is_alone = all(kinds[one.node_id] != kind or one in mine for one in decision.reservations)
        if is_alone and books.claim(job.team, kind, job.devices_per_node * job.nodes).is_granted:
            assert any(free[one.node_id] < one.slots for one in mine)


@settings(deadline=None)
@given(scenes())
def test_the_same_input_gives_the_same_output_in_whatever_order_it_comes(scene: Scene) -> None:
    mixed = replace_lists(scene, random.Random(7))
    first, again = scene.decide(), mixed.decide()
    assert first == again


def replace_lists(scene: Scene, chance: random.Random) -> Scene:
    def shuffled(items: list[Any]) -> list[Any]:
        return chance.sample(items, len(items))

    teams = dict(shuffled(list(scene.teams.items())))
    return Scene(shuffled(scene.nodes), shuffled(scene.queue), shuffled(scene.running), teams, scene.past)


@settings(deadline=None)
@given(scenes())
def test_only_what_was_borrowed_is_taken_and_only_for_what_is_owed(scene: Scene) -> None:
    decision = scene.decide()
    may_go = {job.id for job in borrowed(scene.running, Books(scene.nodes, scene.running, scene.teams))}
    jobs, running = {job.id: job for job in scene.queue}, {job.id: job for job in scene.running}
    _, now = after(scene, decision)
    owed: Counter[tuple[str, str]] = Counter()
    asked = [one.job_id for one in decision.preemptions]
    assert len(asked) == len(set(asked))
    for one in decision.preemptions:
        victim = running[one.job_id]
        assert victim.id in may_go
        assert victim.team != one.for_team == jobs[one.for_job].team
    for job_id in {one.for_job for one in decision.preemptions}:
        kind = next(one.accelerator for one in decision.preemptions if one.for_job == job_id)
        owed[jobs[job_id].team, kind] += jobs[job_id].devices_per_node * jobs[job_id].nodes
    for (team, kind), slots in owed.items():
        assert held(now)[team, kind] + slots <= scene.teams[team].quotas[kind].nominal
