"""The fixed part in terms of modules that lie in one another: a plan names the largest whole ones."""

from __future__ import annotations

import pytest

from shared.domain.fixed_prefix import prefix_part
from shared.domain.flow import Flow, FlowStep
from shared.domain.flow_needs import FlowNeeds
from shared.domain.plan_figures import PrefixPart

STEPS = ("stem", "layer1.0.conv", "layer1.0.norm", "layer1.1.conv", "layer2.0.conv", "layer2.0.norm")


def fixed_until(end: int) -> PrefixPart:
    """The first `end` steps are fixed; each puts out 10 bytes."""
    flow = Flow((8, 8), tuple(FlowStep(path, (), output_bytes=10) for path in STEPS), ())
    return prefix_part(flow, FlowNeeds(frozenset(), 0, 0, frozenset(range(end)), (), 0), {})


@pytest.mark.parametrize(
    ("end", "modules", "until"),
    [
        (0, (), "stem"),
        (1, ("stem",), "layer1"),
        (2, ("stem", "layer1.0.conv"), "layer1.0.norm"),
        (3, ("stem", "layer1.0"), "layer1.1"),
        (4, ("stem", "layer1"), "layer2"),
        (5, ("stem", "layer1", "layer2.0.conv"), "layer2.0.norm"),
        (6, ("",), None),
    ],
)
def test_whole_modules_are_named_by_the_topmost_and_the_end_by_the_first_untouched(
    end: int, modules: tuple[str, ...], until: str | None
) -> None:
    part = fixed_until(end)
    assert part.modules == modules
    assert part.until == until
    assert part.share_of_forward == round(end / len(STEPS), 6)
