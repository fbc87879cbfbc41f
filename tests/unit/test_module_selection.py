"""Which modules a person means: paths, globs, and what gets the nearest names."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.module_selection import MAX_MODULES, select_modules
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo

RESNET = catalog.get("resnet18").tree
WEIGHT = (TensorInfo("weight", (1,)),)


def tree_of(*paths: str, **classes: str) -> ModuleTree:
    modules = tuple(ModuleInfo(path, classes.get(path, "Linear"), WEIGHT) for path in ("", *paths))
    return ModuleTree(modules, aliases={}, head=(), blocks=(), num_classes=None)


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["layer4"], ["layer4"]),
        (["fc", "conv1", "fc"], ["conv1", "fc"]),
        (["layer?"], ["layer1", "layer2", "layer3", "layer4"]),
        (["layer4.*"], ["layer4.0", "layer4.1"]),
        (["layer4.**.bn1"], ["layer4.0.bn1", "layer4.1.bn1"]),
        (["**.downsample"], ["layer2.0.downsample", "layer3.0.downsample", "layer4.0.downsample"]),
        (["*"], ["conv1", "bn1", "relu", "maxpool", *(f"layer{n}" for n in "1234"), "avgpool", "fc"]),
    ],
)
def test_patterns_mean_modules_in_the_networks_order(patterns: list[str], found: list[str]) -> None:
    assert select_modules(patterns, RESNET, "modules") == found


@pytest.mark.parametrize(
    ("patterns", "param", "words"),
    [
        (["layer9"], "modules[0]", "layer1"),
        (["fc", "layer4.2"], "modules[1]", "layer4.1"),
        (["layer9.*"], "modules[0]", "layer"),
        (["layer4..bn1"], "modules[0]", "no module"),
        (["**"], "modules", f"at most {MAX_MODULES}"),
        (["layer4.**bn1"], "modules[0]", "alone between dots"),
    ],
)
def test_what_means_nothing_is_refused_with_the_nearest_names(
    patterns: list[str], param: str, words: str
) -> None:
    with pytest.raises(Invalid, match=re.escape(words)) as refusal:
        select_modules(patterns, RESNET, "modules")
    assert refusal.value.param == param


def test_a_container_is_never_called_and_what_it_holds_is() -> None:
    tree = tree_of("blocks", "blocks.0", "blocks.1", "fc", blocks="ModuleList")

    assert select_modules(["blocks.*"], tree, "modules") == ["blocks.0", "blocks.1"]
    assert select_modules(["**"], tree, "modules") == ["blocks.0", "blocks.1", "fc"]
    with pytest.raises(Invalid, match="ModuleList, which is never called itself"):
        select_modules(["blocks"], tree, "modules")


def test_a_shared_module_has_all_its_paths_and_columns_keep_their_names() -> None:
    tree = ModuleTree(
        modules=tree_of("first", "label").modules,
        aliases={"second.weight": "first.weight"},
        head=(),
        blocks=(),
        num_classes=None,
    )

    assert select_modules(["second", "first"], tree, "modules") == ["first", "second"]
    with pytest.raises(Invalid, match="no module 'label'"):
        select_modules(["label"], tree, "modules")


names = st.lists(st.sampled_from(["a", "b", "ab", "ba", "1"]), min_size=1, max_size=5).map(".".join)
parts = st.sampled_from(["a", "b", "ab", "1", "*", "?", "a*", "?b", "**"])


@given(paths=st.sets(names, min_size=1, max_size=12), pattern=st.lists(parts, min_size=1, max_size=5))
def test_globs_mean_what_a_regular_expression_would(paths: set[str], pattern: list[str]) -> None:
    """Each path as parts that end in a dot, so that `**` is any number of them."""
    one = {"*": "[^.]*", "?": "[^.]"}
    regex = "".join(
        r"(?:[^.]+\.)*" if part == "**" else "".join(one.get(c, re.escape(c)) for c in part) + r"\."
        for part in pattern
    )
    expected = {path for path in paths if re.fullmatch(regex, path + ".")}
    if not any("*" in part or "?" in part for part in pattern):
        return
    try:
        found = set(select_modules([".".join(pattern)], tree_of(*sorted(paths)), "modules"))
    except Invalid:
        found = set()
    assert found == expected


def test_a_hostile_glob_costs_next_to_nothing() -> None:
    began = time.perf_counter()
    with pytest.raises(Invalid):
        select_modules([".".join(["**", "*a*a*a*a*b"] * 20)], catalog.get("vit_h_14").tree, "modules")
    assert time.perf_counter() - began < 2.0
