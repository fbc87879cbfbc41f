"""Whether a job fits the nodes there are, and what it is told where it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from planned_network import subject
from pydantic import ValidationError

from shared.domain.errors import Invalid
from shared.domain.fits import Demand, NodeKind, check_fits, fits, warnings
from shared.domain.memory import peak
from shared.domain.plan import planned
from shared.domain.spec import Hyperparameters

GIB = 2**30


def demand(*args: Any, **changes: Any) -> Demand:
    """Of the small network on pictures so large that 512 of them take about 22 GiB."""
    asked = subject(*args, **{"size": (800, 800), "batch_size": 512, **changes})
    hyperparameters = asked.job.hyperparameters
    return Demand(planned(asked).needs, hyperparameters.batch_size, asked.world_size)


def gpu(name: str, gib: float | None, nodes: int = 1, cannot: str | None = None) -> NodeKind:
    return NodeKind(name, int(gib * GIB) if gib is not None else None, nodes, cannot)


def test_a_device_that_holds_the_worst_phase_fits() -> None:
    asked = demand()
    needed = peak(asked.needs["cuda"], 512)
    assert needed is not None
    exactly, too_small = fits(asked, [NodeKind("A", needed, 3), NodeKind("B", needed - 1, 1)])
    assert (exactly.fits, exactly.needed_bytes, exactly.nodes, exactly.reason) == (True, needed, 3, None)
    assert exactly.largest_batch_size == 512
    assert too_small.fits is False
    assert too_small.largest_batch_size == 511
    assert "batch_size 511 would fit" in (too_small.reason or "")


def test_the_batch_that_would_fit_is_one_that_the_ranks_divide() -> None:
    (fit,) = fits(demand(world_size=4, batch_size=4 * 512), [gpu("A", 16)])
    assert fit.fits is False
    assert fit.largest_batch_size is not None
    assert fit.largest_batch_size % 4 == 0
    again = demand(world_size=4, batch_size=fit.largest_batch_size)
    more = demand(world_size=4, batch_size=fit.largest_batch_size + 4)
    assert fits(again, [gpu("A", 16)])[0].fits is True
    assert fits(more, [gpu("A", 16)])[0].fits is False


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_batch_that_would_fit_is_one_that_a_job_may_ask_for(world_size: int) -> None:
    (fit,) = fits(demand(world_size=world_size, batch_size=world_size), [gpu("A", 2**20)])
    assert fit.largest_batch_size is not None
    assert Hyperparameters(batch_size=fit.largest_batch_size)
    with pytest.raises(ValidationError, match="less than or equal"):
        Hyperparameters(batch_size=fit.largest_batch_size + world_size)


def test_a_device_that_does_not_hold_the_process_alone_fits_no_batch() -> None:
    (fit,) = fits(demand(), [gpu("A", 0.25)])
    assert fit.largest_batch_size == 0
    assert "no batch_size would fit" in (fit.reason or "")


def test_a_cpu_node_is_reckoned_as_one() -> None:
    asked = demand(precision="auto")
    on_cpu, on_gpu = fits(asked, [NodeKind("cpu", 64 * GIB, 1), gpu("A", 64)])
    assert on_cpu.needed_bytes == peak(asked.needs["cpu"], 512)
    assert on_gpu.needed_bytes == peak(asked.needs["cuda"], 512)
    assert (on_cpu.needed_bytes or 0) > (on_gpu.needed_bytes or 0)


def test_where_a_side_is_not_known_neither_is_the_answer() -> None:
    (unknown,) = fits(demand(), [gpu("A", None)])
    assert (unknown.fits, unknown.largest_batch_size) == (None, None)
    assert "memory of these nodes is not known" in (unknown.reason or "")
    (no_flow,) = fits(demand(flow=None), [gpu("A", 80)])
    assert (no_flow.fits, no_flow.needed_bytes, no_flow.largest_batch_size) == (None, None, None)
    assert "what it needs is not known" in (no_flow.reason or "")


def test_nodes_that_could_not_run_it_do_not_fit_whatever_their_memory() -> None:
    (fit,) = fits(demand(), [gpu("A", 80, cannot="has 1 device, and the job asks for 2")])
    assert fit.fits is False
    assert fit.reason == "has 1 device, and the job asks for 2"


class TestWarnings:
    def test_none_where_it_fits_or_where_nobody_knows(self) -> None:
        assert warnings(demand(), [gpu("A", 80)]) == []
        assert warnings(demand(), [gpu("A", None)]) == []
        assert warnings(demand(), []) == []
        assert warnings(demand(flow=None), [gpu("A", 1)]) == []

    def test_one_that_fits_nowhere_names_the_best_node_and_its_batch(self) -> None:
        (warning,) = warnings(demand(), [gpu("small", 4), gpu("large", 8), gpu("odd", 80, cannot="no")])
        assert "fits no node that could run it" in warning
        assert "on large it needs" in warning
        assert "of 8.0 GiB" in warning
        assert "batch_size" in warning

    def test_none_where_some_hold_it_as_it_is_placed_on_no_other(self) -> None:
        assert warnings(demand(), [gpu("small", 4), gpu("large", 80)]) == []

    def test_one_that_a_person_lets_on_smaller_devices_says_so(self) -> None:
        asked = replace(demand(), asked_bytes=3 * GIB)
        (warning,) = warnings(asked, [gpu("small", 4), gpu("tiny", 2), gpu("large", 80)])
        assert "(small, 4.0 GiB)" in warning
        assert "resources.min_memory_bytes" in warning
        assert warnings(replace(asked, asked_bytes=60 * GIB), [gpu("large", 80)]) == []

    def test_nodes_that_are_lost_are_not_there(self) -> None:
        (warning,) = warnings(demand(), [gpu("small", 4), replace(gpu("large", 80, nodes=0), lost=1)])
        assert "fits no node" in warning


class TestRefusal:
    def test_no_node_that_could_run_it_holds_it(self) -> None:
        with pytest.raises(
            Invalid, match=r"on large it needs .* of 8\.0 GiB .*; batch_size \d+ would fit"
        ) as no:
            check_fits(demand(), [gpu("small", 4), gpu("large", 8), gpu("odd", 80, cannot="no")])
        assert (no.value.param, no.value.code) == ("hyperparameters.batch_size", "never_available")
        assert "resources.min_memory_bytes" in no.value.message

    def test_a_smaller_batch_is_not_named_where_none_would_fit(self) -> None:
        with pytest.raises(Invalid, match="no batch_size would fit") as no:
            check_fits(demand(), [gpu("A", 0.25)])
        assert no.value.param == "resources"

    @pytest.mark.parametrize(
        ("kinds", "named"),
        [
            ([gpu("A", 8), NodeKind("cpu", 9 * GIB, 1)], "A"),
            ([gpu("A", 2), NodeKind("cpu", 9 * GIB, 1)], "cpu"),
            ([gpu("A", 0.1), gpu("B", 0.25), gpu("C", 0.2)], "B"),
        ],
        ids=["more memory holds fewer in full precision", "it still holds more", "none holds any"],
    )
    def test_the_kind_that_comes_nearest_is_named(self, kinds: list[NodeKind], named: str) -> None:
        with pytest.raises(Invalid, match=f"on {named} it needs"):
            check_fits(demand(precision="auto"), kinds)

    @pytest.mark.parametrize(
        "kinds",
        [
            [],
            [gpu("small", 4), gpu("large", 80)],
            [gpu("small", 4), replace(gpu("lost", 80, nodes=0), lost=1)],
            [gpu("small", 4), gpu("unknown", None)],
            [gpu("small", 4), NodeKind("cpu", None, 1)],
            [gpu("small", 4, cannot="no")],
        ],
    )
    def test_it_is_taken_where_one_may_hold_it(self, kinds: list[NodeKind]) -> None:
        check_fits(demand(), kinds)

    def test_a_gang_needs_so_many_nodes_that_hold_it(self) -> None:
        gang = replace(demand(), nodes=2)
        kinds = [gpu("A", 4, nodes=3), gpu("A", 80, nodes=1)]
        with pytest.raises(Invalid, match="fits fewer than 2 nodes of a kind: on A it needs"):
            check_fits(gang, kinds)
        check_fits(gang, [gpu("A", 4), gpu("A", 80), replace(gpu("A", 79), lost=1)])
        check_fits(gang, [gpu("A", 4), gpu("A", 80), gpu("A", None)])

    def test_a_gang_is_not_made_up_of_two_kinds(self) -> None:
        gang = replace(demand(), nodes=2)
        kinds = [gpu("A", 80), gpu("B", 80), gpu("B", 4)]
        with pytest.raises(Invalid, match="fits fewer than 2 nodes of a kind: on B it needs"):
            check_fits(gang, kinds)
        check_fits(gang, [*kinds, replace(gpu("B", 79), lost=1)])

    def test_what_a_person_says_counts_in_place_of_the_estimate(self) -> None:
        kinds = [gpu("A", 4)]
        check_fits(replace(demand(), asked_bytes=0), kinds)
        (fit,) = fits(replace(demand(), asked_bytes=0), kinds)
        assert (fit.fits, fit.needed_bytes, fit.reason) == (True, 0, None)
        (fit,) = fits(replace(demand(), asked_bytes=5 * GIB), kinds)
        assert fit.fits is False
        assert fit.reason == "needs 5.0 GiB of 4.0 GiB on each device, as resources.min_memory_bytes asks"
        (on_cpu,) = fits(replace(demand(), asked_bytes=0), [NodeKind("cpu", 64 * GIB, 1)])
        assert on_cpu.needed_bytes == peak(demand().needs["cpu"], 512), "it is of GPUs"
