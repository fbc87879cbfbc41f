"""What the API remembers of plans, and how much of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.services.plan_cache import KnownPlan, PlanCache
from shared.domain.errors import Invalid


def plan(text: bytes = b"{}") -> Callable[[], KnownPlan]:
    return lambda: KnownPlan(text, {})


def never() -> KnownPlan:
    raise AssertionError("it should have been known")


def is_known(cache: PlanCache, key: str) -> bool:
    """Looks by asking for the plan, which makes it the latest; one that was not known is not kept."""
    try:
        cache.get(key, never)
    except AssertionError:
        return False
    return True


def test_a_plan_is_made_once() -> None:
    cache = PlanCache()
    first = cache.get("a", plan(b"first"))
    assert cache.get("a", never) is first
    assert cache.get("b", plan(b"second")).text == b"second"


def test_the_one_that_nobody_asked_for_the_longest_is_forgotten() -> None:
    cache = PlanCache(most_entries=2)
    cache.get("a", plan())
    cache.get("b", plan())
    cache.get("a", never)
    cache.get("c", plan())
    assert [is_known(cache, key) for key in "abc"] == [True, False, True]


def test_their_bytes_are_bounded_and_one_that_is_too_large_alone_is_not_kept() -> None:
    cache = PlanCache(most_bytes=100)
    cache.get("a", plan(b"x" * 40))
    cache.get("b", plan(b"x" * 40))
    cache.get("c", plan(b"x" * 40))
    assert [is_known(cache, key) for key in "abc"] == [False, True, True]
    assert len(cache.get("d", plan(b"x" * 200)).text) == 200
    assert not any(is_known(cache, key) for key in "abcd")
    cache.get("e", plan(b"x" * 90))
    assert is_known(cache, "e"), "the bytes of what was forgotten count no more"


def test_a_plan_that_two_requests_make_at_once_counts_once() -> None:
    cache = PlanCache(most_bytes=100)

    def slowly() -> KnownPlan:
        cache.get("a", plan(b"x" * 60))
        return plan(b"x" * 60)()

    cache.get("a", slowly)
    cache.get("b", plan(b"x" * 30))
    assert is_known(cache, "a")
    assert is_known(cache, "b")


def test_a_refusal_is_not_remembered() -> None:
    cache = PlanCache()

    def refused() -> KnownPlan:
        raise Invalid("no such part")

    with pytest.raises(Invalid):
        cache.get("a", refused)
    assert cache.get("a", plan(b"now it is there")).text == b"now it is there"
