"""When a node of a gang counts as cut off: the times are handed in, what answers or does not is real."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from listeners import LOOPBACK, listening, refusing, swallowing

from shared.domain.job import Outcome
from worker.launch import PeerAddress
from worker.reach import Reach, ReachRule, cut_off

UNREACHABLE_S = 40.0
EVERY_S = 4.0
# A broadcast, to which no kernel connects.
NOWHERE = "255.255.255.255"


def asked(rule: ReachRule, *times: float) -> ReachRule:
    for ran_s in times:
        rule.ask(ran_s)
    return rule


def test_a_node_is_cut_off_when_nothing_that_it_was_asked_for_so_long_had_an_answer() -> None:
    rule = asked(ReachRule(UNREACHABLE_S), 4.0, 8.0, 12.0)
    assert not rule.is_cut_off(44.0)
    assert rule.is_cut_off(44.1)


def test_after_an_answer_the_count_begins_with_the_next_question() -> None:
    """Not with the answer: the database, gone in the same moment, must hold the run before."""
    rule = asked(ReachRule(UNREACHABLE_S), 4.0, 8.0)
    rule.hear()
    assert not rule.is_cut_off(1_000.0), "nobody has asked since"
    asked(rule, 12.0, 16.0)
    assert not rule.is_cut_off(52.0)
    assert rule.is_cut_off(52.1)


def unreached(
    port: int, until_s: float, *, addresses: tuple[str, ...] = (LOOPBACK,), held: tuple[float, float] = (0, 0)
) -> str | None:
    """What is said of a node up to `until_s` of running, in which it is held from one time to another."""
    reach = Reach([PeerAddress(node="node-0", addresses=list(addresses), port=port)], UNREACHABLE_S)
    looks = (tenth / 10 for tenth in range(int(until_s * 10) + 1))
    said = (reach.unreached(ran_s, held=held[0] <= ran_s < held[1]) for ran_s in looks)
    return next(filter(None, said), None)


@pytest.mark.parametrize("answering", [listening, refusing])
def test_a_node_that_accepts_or_refuses_is_reached(
    answering: Callable[[], AbstractContextManager[int]],
) -> None:
    with answering() as port:
        assert unreached(port, 3 * UNREACHABLE_S) is None


def test_a_node_that_answers_nothing_is_named_with_its_address() -> None:
    with swallowing() as port:
        assert unreached(port, UNREACHABLE_S) is None
        said = unreached(port, UNREACHABLE_S + 1)
    assert said == f"the node node-0 of the same run ({LOOPBACK} port {port}: no answer)"
    told = cut_off("node-1", said, UNREACHABLE_S)
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "node_unreachable")
    assert told.error.message == f"the node node-1 could not reach {said} for 40 s"


def test_one_address_of_several_that_answers_is_enough() -> None:
    with refusing() as port:
        assert unreached(port, 3 * UNREACHABLE_S, addresses=(NOWHERE, LOOPBACK)) is None


def test_what_the_own_kernel_has_against_it_is_told() -> None:
    said = unreached(1, UNREACHABLE_S + 1, addresses=(NOWHERE,))
    assert said == f"the node node-0 of the same run ({NOWHERE} port 1: network is unreachable)"


def test_neither_the_time_in_which_a_run_is_held_counts_nor_what_was_before() -> None:
    woken_s = 39.0
    with swallowing() as port:
        assert unreached(port, woken_s + UNREACHABLE_S, held=(30.0, woken_s)) is None
        assert unreached(port, woken_s + EVERY_S + UNREACHABLE_S + 1, held=(30.0, woken_s))
