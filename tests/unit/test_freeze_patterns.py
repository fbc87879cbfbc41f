"""Single patterns of the freeze language."""

from __future__ import annotations

import time

import pytest

from shared import catalog
from shared.domain.errors import Invalid, NotSupportedYet
from shared.domain.freeze import FreezeSpec, parse_freeze, resolve
from shared.domain.freeze_patterns import check_pattern, compile_pattern, nearest
from shared.domain.module_tree import ModuleTree

LARGEST = "efficientnet_v2_l"

MATCHES = [
    ("layer4", "layer4.0.conv1.weight", True),
    ("layer4", "layer40.weight", False),
    ("layer4.0.conv1.weight", "layer4.0.conv1.weight", True),
    ("layer4.0.conv1.weight.x", "layer4.0.conv1.weight", False),
    ("layer?", "layer1.0.conv1.weight", True),
    ("layer?", "layer10.conv1.weight", False),
    ("*", "layer1.0.conv1.weight", True),
    ("*.bn1", "layer1.bn1.weight", True),
    ("*.bn1", "layer1.0.bn1.weight", False),
    ("**.bn1", "bn1.weight", True),
    ("**.bn1", "layer1.0.bn1.weight", True),
    ("**.bn1", "layer1.0.xbn1.weight", False),
    ("layer1.**.weight", "layer1.weight", True),
    ("layer1.**.weight", "layer1.0.conv1.weight", True),
    ("layer1.**.weight", "layer1.0.conv1.bias", False),
    ("layer1.**", "layer1.0.conv1.bias", True),
    ("**", "weight", True),
    ("**.**.conv1", "conv1.weight", True),
    ("**.layer1.**.bn?", "a.layer1.b.c.bn2.bias", True),
    ("**.conv*", "a.convolution.weight", True),
    ("[ab]*", "[ab]c.weight", True),
    ("[ab]*", "a.weight", False),
    ("a.*", "a", False),
    ("name:conv1", "layer1.0.conv1.weight", True),
    ("name:v1.w", "layer1.0.conv1.weight", True),
    ("name:conv?", "layer1.0.conv1.weight", False),
    ("@head", "fc.bias", True),
    ("@head", "fcx.bias", False),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), MATCHES)
def test_what_a_pattern_matches(pattern: str, name: str, expected: bool) -> None:
    tree = ModuleTree(modules=(), aliases={}, head=("fc",), blocks=(), num_classes=None)
    check_pattern(pattern, "freeze")
    assert compile_pattern(pattern, tree)(name) is expected


@pytest.mark.parametrize("pattern", ["type:BatchNorm2d", "re:^conv", "first:3", "last:1"])
def test_kinds_that_come_later_say_so(pattern: str) -> None:
    with pytest.raises(NotSupportedYet, match=pattern.partition(":")[0] + ":") as refused:
        parse_freeze(["conv1", pattern])
    assert refused.value.param == "freeze.rules[0].freeze[1]"


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("nam:conv1", "no kind of pattern"),
        ("name:", "needs some text"),
        ("@tail", "'@head'"),
        ("layer1..conv1", "empty part"),
        (".layer1", "empty part"),
        ("layer**", "stand alone"),
        ("**.**.**.**x", "stand alone"),
    ],
)
def test_a_pattern_without_meaning_is_refused_before_any_model_is_known(pattern: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        FreezeSpec.model_validate({"rules": [{"freeze": "conv1"}, {"train": pattern}]})
    assert refused.value.param == "freeze.rules[1].train[0]"


HOSTILE = [
    "**.**.**.**x",
    "**.**.**.**.*x",
    "**.*.**.*.**.*.**.*x",
    "*a*a*a*a*a*a*a*a*a*a*a*a*b",
    "**." + "*?" * 140 + "x",
    ".".join(["**", "*"] * 50) + ".x",
    "name:" + "a" * 290,
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_hostile_patterns_are_answered_at_once(pattern: str) -> None:
    tree = catalog.get(LARGEST).tree
    assert tree.names

    def seconds() -> float:
        start = time.process_time()
        with pytest.raises(Invalid):
            resolve(parse_freeze([pattern]), tree)
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.03


def test_the_nearest_names_come_best_first() -> None:
    names = catalog.get("resnet18").tree.paths_and_names
    assert nearest("layer5", names)[0] in {"layer1", "layer2", "layer3", "layer4"}
    assert nearest("layer4.1.conv3", names)[0].startswith("layer4.1.conv")
    assert nearest("fully_connected", ["bn1", "fully_conected", "fc"])[0] == "fully_conected"
    assert len(nearest("x", names)) == 5
