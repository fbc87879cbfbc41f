"""Single patterns of the freeze language."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.freeze import FreezeSpec, parse_freeze, resolve
from shared.domain.freeze_patterns import check_pattern, compile_pattern
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo
from shared.domain.near_names import nearest

LARGEST = "efficientnet_v2_l"
SMALL = ModuleTree(
    modules=(
        ModuleInfo("", "Net"),
        ModuleInfo("stem", "Conv2d", (TensorInfo("weight", (2,)),)),
        ModuleInfo("body", "Sequential"),
        ModuleInfo("body.0", "Block"),
        ModuleInfo("body.0.norm", "BatchNorm2d", (TensorInfo("weight", (2,)),)),
        ModuleInfo("body.0.act", "ReLU"),
        ModuleInfo("body.10", "BlockV2", (TensorInfo("weight", (2,)),)),
        ModuleInfo("fc", "Linear", (TensorInfo("weight", (2,)),)),
    ),
    aliases={},
    head=("fc",),
    blocks=("stem", "body.0", "body.10"),
    num_classes=2,
)

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
    ("type:Block", "body.0.norm.weight", True),
    ("type:Block", "body.10.weight", False),
    ("type:BatchNorm2d", "body.0.norm.weight", True),
    ("type:BatchNorm", "body.0.norm.weight", False),
    ("type:batchnorm2d", "body.0.norm.weight", False),
    ("type:Net", "stem.weight", True),
    ("re:norm", "body.0.norm.weight", True),
    ("re:^norm", "body.0.norm.weight", False),
    (r"re:\.\d\.", "body.0.norm.weight", True),
    (r"re:\.\d\.", "body.10.weight", False),
    ("re:weight$", "stem.weight", True),
    ("re:(?i)NORM", "body.0.norm.weight", True),
    ("re:é", "é.weight", True),
    ("first:1", "stem.weight", True),
    ("first:1", "body.0.norm.weight", False),
    ("first:2", "body.0.norm.weight", True),
    ("first:2", "body.10.weight", False),
    ("first:3", "fc.weight", False),
    ("last:1", "body.10.weight", True),
    ("last:1", "body.1.weight", False),
    ("last:1", "fc.weight", False),
    ("last:3", "stem.weight", True),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), MATCHES)
def test_what_a_pattern_matches(pattern: str, name: str, expected: bool) -> None:
    check_pattern(pattern, "freeze")
    assert compile_pattern(pattern, SMALL)(name) is expected


def test_blocks_count_in_the_order_of_the_forward_and_not_of_registration() -> None:
    tree = replace(SMALL, blocks=("body.10", "stem", "body.0"))
    assert [name for name in tree.names if compile_pattern("first:1", tree)(name)] == ["body.10.weight"]
    assert [name for name in tree.names if compile_pattern("last:1", tree)(name)] == ["body.0.norm.weight"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("type:BatchNorm3d", "the nearest class names are BatchNorm2d, "),
        ("type:Blok", "Block, BlockV2"),
        ("type:ReLU", "have no parameters below them"),
        ("re:^norm$", r"'re:\^norm\$' matches no parameter.*body.0.norm"),
        ("first:4", r"3 blocks besides its head \(stem, body.0, body.10\)"),
        ("last:400000000000", r"3 blocks besides its head"),
        ("name:nrm", "body.0.norm"),
        ("@head.weight", "unknown"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_is_there(pattern: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        resolve(parse_freeze(["stem", pattern]), SMALL)
    assert refused.value.param == "freeze.rules[0].freeze[1]"
    assert repr(pattern) in refused.value.message


def test_a_network_without_blocks_has_none_to_count() -> None:
    with pytest.raises(Invalid, match="has none besides its head"):
        resolve(parse_freeze(["first:1"]), replace(SMALL, blocks=()))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("nam:conv1", "no kind of pattern"),
        ("name:", "needs some text"),
        ("type:", "needs a class name"),
        ("re:", "needs an expression"),
        ("re:(conv", r"missing \): \(conv"),
        ("re:a**", r"bad repetition operator: \*\*"),
        (r"re:(?=conv)", r"invalid perl operator: \(\?="),
        (r"re:(a)\1", r"invalid escape sequence"),
        ("re:a{1001}", "invalid repetition size"),
        (r"re:(?:\pL{30}){30}", "pattern too large"),
        ("re:(?:.?){480}x$", "4,325 instructions"),
        ("first:", "number of blocks"),
        ("first:0", "1 or more"),
        ("last:-1", "1 or more"),
        ("last:1.5", "'1.5' is none"),
        ("last:١", "number of blocks"),
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
    "re:" + "(a+)+" * 50 + "$x",
    "re:(?:.{0,9}[0-9.]){18}q",
    r"re:(?:\w|\W)*\d(?:.|\d|\w){120}q",
    "re:" + "(" * 90 + "." + "?)" * 90 + "q$",
    "type:" + "BatchNorm" * 30,
    "last:" + "9" * 290,
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


def test_an_expression_that_takes_a_backtracker_for_ever_is_linear_here() -> None:
    r"""`(\w+)+\.weight$` in Python's `re` doubles its time with each letter of a name that does not match."""
    names = [name for name in catalog.get(LARGEST).tree.names if not name.endswith(".weight")]
    many = [f"{'a' * 2_000}.{name}" for name in names]

    def seconds(texts: list[str]) -> float:
        start = time.process_time()
        matches = compile_pattern(r"re:(\w+)+\.weight$", SMALL)
        assert not any(map(matches, texts))
        return time.process_time() - start

    assert min(seconds(names) for _ in range(5)) < 0.02
    assert min(seconds(many) for _ in range(5)) < 0.2


def test_the_nearest_names_come_best_first() -> None:
    names = catalog.get("resnet18").tree.paths_and_names
    assert nearest("layer5", names)[0] in {"layer1", "layer2", "layer3", "layer4"}
    assert nearest("layer4.1.conv3", names)[0].startswith("layer4.1.conv")
    assert nearest("fully_connected", ["bn1", "fully_conected", "fc"])[0] == "fully_conected"
    assert len(nearest("x", names)) == 5
