"""The rule of deafness: when a worker that hears nothing reconnects, and when it begins anew."""

from __future__ import annotations

import pytest

from worker.hearing import HearingRule, Remedy


@pytest.fixture
def rule() -> HearingRule:
    return HearingRule(patience_s=15.0, reconnect_s=10.0)


def test_a_worker_without_offers_is_left_alone(rule: HearingRule) -> None:
    assert rule.decide(1000.0, offers_wait=False, messages_lie=True) is Remedy.NONE
    assert not rule.is_deaf


def test_offers_that_wait_unheard_are_answered_by_a_new_connection_once(rule: HearingRule) -> None:
    assert rule.decide(100.0, offers_wait=True, messages_lie=True) is Remedy.RECONNECT
    assert rule.decide(124.0, offers_wait=True, messages_lie=True) is Remedy.NONE
    assert not rule.is_deaf


def test_who_heard_something_lately_is_not_deaf(rule: HearingRule) -> None:
    rule.heard(90.0)
    assert rule.decide(100.0, offers_wait=True, messages_lie=True) is Remedy.NONE
    assert rule.decide(106.0, offers_wait=True, messages_lie=True) is Remedy.RECONNECT


def test_messages_that_lie_there_still_mean_that_the_process_must_begin_anew(rule: HearingRule) -> None:
    rule.decide(100.0, offers_wait=True, messages_lie=True)
    # The offers are withdrawn by now: the reconciler gave up on this node.
    assert rule.decide(126.0, offers_wait=False, messages_lie=True) is Remedy.BEGIN_ANEW
    assert rule.is_deaf
    assert rule.decide(127.0, offers_wait=False, messages_lie=True) is Remedy.BEGIN_ANEW


def test_a_task_that_arrives_after_all_ends_the_deafness(rule: HearingRule) -> None:
    rule.decide(100.0, offers_wait=True, messages_lie=True)
    rule.decide(126.0, offers_wait=False, messages_lie=True)
    rule.heard(127.0)
    assert rule.decide(128.0, offers_wait=False, messages_lie=True) is Remedy.NONE
    assert not rule.is_deaf


def test_nobody_is_deaf_to_messages_that_were_never_sent(rule: HearingRule) -> None:
    rule.decide(100.0, offers_wait=True, messages_lie=False)
    assert rule.decide(126.0, offers_wait=True, messages_lie=False) is Remedy.NONE
    assert not rule.is_deaf
    assert rule.decide(127.0, offers_wait=True, messages_lie=False) is Remedy.RECONNECT
