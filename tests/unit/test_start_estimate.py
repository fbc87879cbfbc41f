"""When waiting jobs may start: by hand, and for any cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.cluster import Node, Waiting, could_ever_run
from shared.domain.start_estimate import Ahead, NodeSlots, estimate_starts
from shared.domain.time_left import NOW, UNKNOWN, Span, Told, leaving, once_started, running

HOUR = Span(2700.0, 3600.0, 5400.0)
H100 = "NVIDIA H100"


def node(id: str, *frees: Span, accelerator: str = "cpu") -> NodeSlots:
    return NodeSlots(Node(id, accelerator, len(frees), ()), frees)


def job(id: str, devices: int = 1, *, at: float = 0.0, accelerator: str = "any", nodes: int = 1) -> Waiting:
    return Waiting(id=id, order=(0, at, id), devices_per_node=devices, accelerator=accelerator, nodes=nodes)


def starts(nodes: Sequence[NodeSlots], *queue: tuple[Waiting, Span]) -> list[Span | None]:
    found = estimate_starts(nodes, [Ahead(*one) for one in queue])
    return [found[one.id] for one, _ in queue]


def test_a_free_slot_is_taken_at_once_and_by_one_job_alone() -> None:
    assert starts([node("a", NOW)], (job("1"), HOUR), (job("2"), HOUR)) == [
        NOW,
        Span(0.0, 3600.0, 5400.0),
    ]


def test_the_first_in_the_queue_starts_when_enough_of_one_node_comes_free() -> None:
    soon, late = Span(1.0, 2.0, 3.0), Span(10.0, 20.0, 30.0)
    assert starts([node("a", soon, late), node("b", late, late)], (job("1", 2), HOUR)) == [late]
    spread_out = [node("a", soon, late), node("b", soon, late)]
    assert starts(spread_out, (job("1", 2), HOUR)) == [late], "two nodes' slots do not add up"


def test_earliest_is_when_what_runs_now_leaves_whoever_is_ahead() -> None:
    ahead = [(job(str(n)), HOUR) for n in range(3)]
    *_, last = starts([node("a", HOUR)], *ahead)
    assert last == Span(2700.0, 3 * 3600.0, 3 * 5400.0)


def test_what_nobody_can_say_is_none_and_a_bound_stays_a_bound() -> None:
    bounded = Span(0.0, None, 7200.0)
    assert starts([node("a", UNKNOWN)], (job("1"), HOUR)) == [UNKNOWN]
    assert starts([node("a", bounded)], (job("1"), HOUR), (job("2"), HOUR)) == [
        bounded,
        Span(0.0, None, 7200.0 + 5400.0),
    ]
    # The other slot's bound is sooner than this one's pace.
    assert starts([node("a", Span(0.0, None, 50.0), Span(80.0, 100.0, 150.0))], (job("1"), HOUR)) == [
        Span(0.0, 50.0, 50.0)
    ]


def test_nodes_that_differ_in_memory_are_pools_of_their_own() -> None:
    small = NodeSlots(Node("small", H100, 1, (), memory_bytes=10), (NOW,))
    large = NodeSlots(Node("large", H100, 1, (), memory_bytes=20), (HOUR,))
    needy = replace(job("1"), memory_bytes=15)
    assert starts([small, large], (needy, HOUR), (job("2"), HOUR)) == [HOUR, NOW]
    assert starts([small], (needy, HOUR)) == [None]


def test_a_job_that_no_node_could_run_has_no_start_and_keeps_nobody_waiting() -> None:
    queue = [(job("big", 9), HOUR), (job("gang", nodes=2), HOUR), (job("gpu", accelerator="cuda"), HOUR)]
    assert starts([node("a", NOW)], *queue, (job("1"), HOUR)) == [None, None, None, NOW]


def test_a_gang_starts_when_so_many_nodes_of_one_accelerator_have_enough() -> None:
    soon, late, last = Span(1.0, 2.0, 3.0), Span(10.0, 20.0, 30.0), Span(100.0, 200.0, 300.0)
    nodes = [node("a", soon), node("b", last), node("c", late), node("gpu", NOW, accelerator=H100)]
    assert starts(nodes, (job("pair", nodes=2), HOUR)) == [late], "the GPU is one node of another accelerator"
    assert starts(nodes, (job("pair", nodes=2), HOUR), (job("1"), HOUR))[1] == NOW
    larger = [node("a", soon), node("b", late, last)]
    assert starts(larger, (job("pair", nodes=2), HOUR)) == [late], "nodes of two sizes"
    assert starts(larger, (job("pair", nodes=2), HOUR), (job("1"), HOUR))[1] == Span(1.0, 200.0, 300.0)


def test_who_is_behind_a_gang_waits_for_the_slots_that_it_has_taken() -> None:
    nodes = [node("a", NOW, NOW), node("b", NOW, NOW), node("c", NOW, NOW)]
    gang = (job("gang", 2, nodes=2), HOUR)
    assert starts(nodes, gang, (job("1", 2), HOUR), (job("2", 2), HOUR)) == [
        NOW,
        NOW,
        Span(0.0, 3600.0, 5400.0),
    ]


def test_who_waits_for_gpus_does_not_wait_for_cpus() -> None:
    nodes = [node("cpu", HOUR), node("gpu", NOW, accelerator=H100)]
    found = starts(nodes, (job("c", accelerator="cpu"), HOUR), (job("g", accelerator="cuda"), HOUR))
    assert found == [HOUR, NOW]


def test_nobody_starts_likely_before_who_is_ahead_in_the_same_pool() -> None:
    found = starts([node("a", NOW, HOUR)], (job("large", 2), HOUR), (job("small"), HOUR))
    assert found[1] == Span(0.0, 3600.0 + 3600.0, 5400.0 + 5400.0)
    assert starts([node("a", NOW, HOUR, HOUR)], (job("large", 2), HOUR), (job("small"), HOUR))[1] == Span(
        0.0, 3600.0, 5400.0
    )


def test_when_a_team_may_hold_more_is_no_matter_of_slots() -> None:
    queue = [Ahead(job("barred"), HOUR, is_barred=True), Ahead(job("1"), HOUR)]
    assert estimate_starts([node("a", HOUR)], queue) == {"barred": Span(2700.0, None, None), "1": HOUR}


def test_a_running_job_is_told_by_its_pace_within_its_bound() -> None:
    line = {"time": 1000.0, "step": 10, "total_steps": 110, "eta_s": 100.0}

    def span(*, now: float, ran_s: float = 10.0, limit: float | None = None) -> Span:
        return running(Told.read({"train": line}, now=now, ran_s=ran_s, max_duration_s=limit))

    assert span(now=1000.0) == Span(75.0, 110.0, 270.0)
    assert span(now=1060.0) == Span(30.0, 50.0, 180.0)
    assert span(now=1500.0) == Span(0.0, 10.0, 120.0), "it should be over: it is ending"
    assert span(now=1000.0, limit=20.0) == Span(75.0, 110.0, 130.0), "10 s left, then it is ended"
    assert span(now=1000.0, ran_s=500.0, limit=20.0) == Span(75.0, 110.0, 120.0)
    unknown = Told.read({"phase": "loading"}, now=1000.0, ran_s=5.0, max_duration_s=65.0)
    assert running(unknown) == Span(0.0, None, 180.0)
    assert running(Told.read(None, now=0.0, ran_s=0.0, max_duration_s=None)) == UNKNOWN


def test_a_job_that_ran_before_goes_on_at_its_pace_and_may_fail_at_once() -> None:
    told = Told.read({"extraction": {"time": 0.0, "eta_s": 50.0}}, now=9e9, ran_s=100.0, max_duration_s=None)
    assert once_started(told) == Span(0.0, 60.0, 195.0)
    assert leaving(30.0) == Span(0.0, 20.0, 150.0)
    assert leaving(5.0) == Span(0.0, 5.0, 125.0)


times = st.integers(0, 1000).map(float)
spans = st.builds(
    lambda a, b, c, known: Span(a, a + b if known[0] else None, a + b + c if known[1] else None),
    times,
    times,
    times,
    st.tuples(st.booleans(), st.booleans()),
)
accelerators = st.sampled_from(["cpu", H100])
clusters = st.lists(st.tuples(accelerators, st.lists(spans, min_size=1, max_size=5)), max_size=5).map(
    lambda drawn: [node(f"n{i}", *frees, accelerator=what) for i, (what, frees) in enumerate(drawn)]
)
sizes = st.sampled_from([1, 1, 2, 3])
queues = st.lists(
    st.tuples(st.integers(1, 5), sizes, st.sampled_from(["any", "cpu", "cuda"]), spans), max_size=12
).map(
    lambda drawn: [
        Ahead(job(str(i), devices, accelerator=asked, nodes=nodes), holds)
        for i, (devices, nodes, asked, holds) in enumerate(drawn)
    ]
)


def longer(span: Span, by: float) -> Span:
    """The same with more work in it, and perhaps no word of how much."""
    if by > 900:
        return replace(UNKNOWN, earliest=span.earliest)
    add = [None if part is None else part + by for part in (span.likely, span.latest)]
    return Span(span.earliest + by, *add)


@given(clusters, queues, st.data())
def test_more_work_that_runs_makes_no_start_earlier(
    nodes: list[NodeSlots], queue: list[Ahead], data: st.DataObject
) -> None:
    more = [replace(one, frees=tuple(longer(free, data.draw(times)) for free in one.frees)) for one in nodes]
    before, after = estimate_starts(nodes, queue), estimate_starts(more, queue)
    for one in queue:
        was, now = before[one.job.id], after[one.job.id]
        assert (was is None) == (now is None)
        if was is not None and now is not None:
            assert was.earliest <= now.earliest
            assert known(was.likely) <= known(now.likely)
            assert known(was.latest) <= known(now.latest)


@given(clusters, queues, st.data())
def test_more_work_ahead_makes_no_start_earlier(
    nodes: list[NodeSlots], queue: list[Ahead], data: st.DataObject
) -> None:
    new = Ahead(job("new", data.draw(st.integers(1, 5)), nodes=data.draw(sizes)), data.draw(spans))
    place = data.draw(st.integers(0, len(queue)))
    more = estimate_starts(nodes, [*queue[:place], new, *queue[place:]])
    for one in queue:
        was, now = estimate_starts(nodes, queue)[one.job.id], more[one.job.id]
        if was is not None and now is not None:
            assert was.earliest == now.earliest
            assert known(was.latest) <= known(now.latest)


@given(clusters, queues)
def test_bounds_are_in_their_order_and_the_same_question_has_the_same_answer(
    nodes: list[NodeSlots], queue: list[Ahead]
) -> None:
    found = estimate_starts(nodes, queue)
    assert found == estimate_starts(list(reversed(nodes)), queue)
    for one in queue:
        span = found[one.job.id]
        able = Counter(place.node.accelerator for place in nodes if could_ever_run(one.job, place.node))
        assert (span is None) == (max(able.values(), default=0) < one.job.nodes)
        if span is not None:
            assert span.earliest <= known(span.likely)
            assert span.earliest <= known(span.latest)
            if span.likely is not None:
                assert span.likely <= known(span.latest)


@given(clusters, queues, sizes)
def test_of_like_jobs_the_one_that_is_ahead_starts_no_later(
    nodes: list[NodeSlots], queue: list[Ahead], n_nodes: int
) -> None:
    like = [replace(one, job=job(one.job.id, nodes=n_nodes)) for one in queue]
    found = [span for span in estimate_starts(nodes, like).values() if span is not None]
    for ahead, behind in pairwise(found):
        assert ahead.earliest <= behind.earliest
        assert known(ahead.likely) <= known(behind.likely)
        assert known(ahead.latest) <= known(behind.latest)


def known(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
