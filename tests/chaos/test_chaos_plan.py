"""The plan of faults: the same from the same seed, and wide."""

from __future__ import annotations

from itertools import pairwise

from harness.plan import KILLS, OF_SERVERS, OF_THE_NETWORK, OTHERS, STOPS, make_plan


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    assert make_plan(7, 40) == make_plan(7, 40)
    assert make_plan(7, 40) != make_plan(8, 40)


def test_a_longer_plan_begins_as_the_shorter_one() -> None:
    assert make_plan(3, 50)[:20] == make_plan(3, 20)


def test_faults_come_in_order_and_as_far_apart_as_asked() -> None:
    plan = make_plan(1, 200, every_s=10.0)
    gaps = [later.at - earlier.at for earlier, later in pairwise(plan)]

    assert min(gaps) >= 4.9
    assert max(gaps) <= 15.1
    assert all(0 <= fault.pick < 1 for fault in plan)


def test_a_plan_of_two_hundred_has_every_kind() -> None:
    every = {*KILLS, *STOPS, *OF_SERVERS, *OF_THE_NETWORK, *OTHERS}

    assert {fault.kind for fault in make_plan(1, 200)} == every
