"""Five freeze specs on every network of torchvision, against the same question asked of the live network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
import torch
from every_model import Stepped, build, classifiers, every_step, n_parameters, one_step, without_numbers
from plain_meanings import NUM_CLASSES, SPECS, Meaning, called_after, last_block, meaning, named
from step_table import rows
from torch import nn

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.freeze import parse_freeze, resolve
from shared.domain.module_tree import ModuleTree
from worker.training.network_tree import describe_module

LARGEST_TRAINED_HERE = 30_000_000
TRAINED = [name for name in classifiers() if n_parameters(name) <= LARGEST_TRAINED_HERE]


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.names())
def test_the_plans_sets_are_those_of_the_network(name: str, compared: list[tuple[str, str, int]]) -> None:
    side = catalog.get(name).image_size[0]
    model = without_numbers(name, side)
    tree = catalog.get(name).tree.with_num_classes(NUM_CLASSES)
    for spec in SPECS:
        meant = meaning(model, spec.frozen(name, model))
        check(spec.freeze, tree, model, meant)
        compared.append((name, spec.label, len(meant.frozen)))
    inputs = torch.empty(2, 3, side, side, device="meta")
    assert called_after(model, last_block(name, model), inputs) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_one_step_moves_what_trains_and_no_bit_of_what_is_frozen(name: str, printed: list[Stepped]) -> None:
    steps = list(every_step(name))
    printed.extend(steps)
    assert steps
    for stepped in steps:
        assert stepped.wrong == [], stepped
        assert stepped.frozen_moved == 0
        assert stepped.trainable_moved > 0


# Each pattern names one place of a shared parameter; the expression stands for all that is frozen with it.
SHARED = {
    "layer1.1": r"layer1\.(1\.|0\.conv1)",
    "layer4.1.bn2": r"layer4\.1\.(bn2|bn1\.weight)",
    "name:layer4.1.bn2.weight": r"layer4\.1\.bn[12]\.weight",
}


@pytest.mark.parametrize(("freeze", "frozen"), SHARED.items())
def test_shared_parameters_are_decided_once_under_any_of_their_names(freeze: str, frozen: str) -> None:
    model = build("resnet18", 32)
    model.layer1[1].conv1.weight = model.layer1[0].conv1.weight
    model.layer4[1].bn2.weight = model.layer4[1].bn1.weight
    tree = describe_module(model, head="fc")
    assert len(tree.aliases) == 2
    meant = meaning(model, {name for name, _ in named(model) if re.match(frozen, name)})
    check([freeze], tree, model, meant)
    (phase,) = resolve(parse_freeze([freeze]), tree).phases
    assert one_step(model, phase, meant, 32)["wrong"] == []


def check(freeze: object, tree: ModuleTree, model: nn.Module, meant: Meaning) -> None:
    """The plan is what is meant; where that is nothing, the spec is refused."""
    if not meant.frozen:
        with pytest.raises(Invalid, match="nearest") as refused:
            resolve(parse_freeze(freeze), tree)
        assert refused.value.code == "pattern_matches_nothing"
        return
    plan = resolve(parse_freeze(freeze), tree)
    (phase,) = plan.phases
    assert phase.frozen == meant.frozen
    assert phase.trainable == meant.trainable
    assert phase.still == meant.still
    assert plan.aliases == meant.aliases
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert phase.n_frozen == sum(sizes[name] for name in meant.frozen)
    assert phase.n_trainable == sum(sizes[name] for name in meant.trainable)


@pytest.fixture(scope="module")
def printed(request: pytest.FixtureRequest) -> Iterator[list[Stepped]]:
    """The steps that the tests took; they fill it, and its table is printed at their end."""
    steps: list[Stepped] = []
    yield steps
    write(request.config, list(rows(steps)))


@pytest.fixture(scope="module")
def compared(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, str, int]]]:
    """(model, spec, how many parameters it freezes) of each comparison; what ran is printed at the end."""
    found: list[tuple[str, str, int]] = []
    yield found
    lines = [f"the sets of {len({model for model, _, _ in found})} models equal the live network's:"]
    for label in (spec.label for spec in SPECS):
        counts = [count for _, spec, count in found if spec == label]
        lines.append(
            f"  {label:17} on {len(counts)}, refused on {counts.count(0)} as it matches nothing there"
        )
    write(request.config, lines)


def write(config: pytest.Config, lines: list[str]) -> None:
    """Past pytest's capturing, from whichever of its processes this is: only the first has a reporter."""
    with config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        sys.stderr.write("\n".join(["", *lines, ""]))
        sys.stderr.flush()
