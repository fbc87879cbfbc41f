"""Module trees: what they say, what a new head does to them, and their JSON."""

from __future__ import annotations

import json

import pytest

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo


def tied_tree() -> ModuleTree:
    """An encoder whose weight the decoder shares, and a head."""
    weight = TensorInfo("weight", (8, 8))
    return ModuleTree(
        modules=(
            ModuleInfo("", "Tied"),
            ModuleInfo("encoder", "Linear", (weight,)),
            ModuleInfo("decoder", "Linear", (weight, TensorInfo("bias", (8,)))),
            ModuleInfo("norm", "BatchNorm1d", (), (TensorInfo("steps", (), "int64"),)),
            ModuleInfo("head", "Linear", (TensorInfo("weight", (4, 8)), TensorInfo("bias", (4,)))),
        ),
        aliases={"decoder.weight": "encoder.weight"},
        head=("head",),
        blocks=("encoder", "decoder"),
        num_classes=4,
    )


def test_parameters_are_canonical_names_in_order_with_shapes() -> None:
    assert list(tied_tree().shapes.items()) == [
        ("encoder.weight", (8, 8)),
        ("decoder.bias", (8,)),
        ("head.weight", (4, 8)),
        ("head.bias", (4,)),
    ]


def test_a_new_number_of_classes_changes_the_head_alone() -> None:
    tree = tied_tree().with_num_classes(7)
    assert tree.num_classes == 7
    assert tree.shapes["head.weight"] == (7, 8)
    assert tree.shapes["head.bias"] == (7,)
    assert tree.shapes["encoder.weight"] == (8, 8)


def test_auxiliary_classifiers_get_the_same_classes() -> None:
    shapes = catalog.get("googlenet").tree.with_num_classes(3).shapes
    assert [shapes[f"{path}.weight"][0] for path in ("fc", "aux1.fc2", "aux2.fc2")] == [3, 3, 3]


def test_another_main_head_keeps_the_auxiliary_ones_and_leaves_the_blocks() -> None:
    tree = catalog.get("googlenet").tree.with_head(["conv1.conv"])
    assert tree.head == ("conv1.conv", "aux1.fc2", "aux2.fc2")
    assert tree.num_classes == 64
    assert catalog.get("alexnet").tree.with_head(["classifier.4"]).blocks[-1] == "classifier.1"


@pytest.mark.parametrize(
    ("path", "words"),
    [("nothing", "is no module"), ("norm", "is a BatchNorm1d"), ("decoder", "shares 'decoder.weight'")],
)
def test_a_head_that_cannot_be_replaced_is_refused(path: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        tied_tree().with_head([path])
    assert refused.value.param == "head.module"


def test_a_refused_container_names_the_layer_below_it() -> None:
    with pytest.raises(Invalid, match=r"classifier\.6"):
        catalog.get("alexnet").tree.with_head(["classifier"])


@pytest.mark.parametrize("tree", [tied_tree(), catalog.get("inception_v3").tree], ids=["tied", "inception"])
def test_json_gives_the_same_tree_back(tree: ModuleTree) -> None:
    assert ModuleTree.from_data(json.loads(json.dumps(tree.to_data()))) == tree
