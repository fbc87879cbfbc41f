"""Learning-rate factors of the freeze language: `lr_scale` of a rule, and `layer_decay` by depth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.freeze import parse_freeze, resolve
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo

RESNET = catalog.get("resnet18").tree


def scales(freeze: dict[str, Any], tree: ModuleTree = RESNET) -> list[dict[str, float]]:
    return [phase.lr_scale for phase in resolve(parse_freeze(freeze), tree).phases]


def refusal(freeze: dict[str, Any], tree: ModuleTree = RESNET) -> Invalid:
    with pytest.raises(Invalid) as refused:
        resolve(parse_freeze(freeze), tree)
    return refused.value


def below(path: str) -> set[str]:
    return {name for name in RESNET.names if name.startswith(f"{path}.")}


class TestScaleOfARule:
    def test_it_holds_for_what_the_rule_trains(self) -> None:
        rules = [{"freeze": "**"}, {"train": "layer4", "lr_scale": 0.1}, {"train": "@head"}]
        assert scales({"rules": rules}) == [dict.fromkeys(below("layer4"), 0.1)]

    def test_the_last_rule_wins_as_a_whole(self) -> None:
        rules = [{"train": "layer4", "lr_scale": 0.1}, {"train": "layer4.1"}]
        assert scales({"rules": rules}) == [dict.fromkeys(below("layer4.0"), 0.1)]
        rules = [{"train": "layer4", "lr_scale": 0.1}, {"freeze": "layer4.1"}]
        assert scales({"rules": rules}) == [dict.fromkeys(below("layer4.0"), 0.1)]
        rules = [{"train": "layer4", "lr_scale": 0.1}, {"train": "layer4.1", "lr_scale": 0.5}]
        assert scales({"rules": rules})[0]["layer4.1.bn1.weight"] == 0.5

    def test_a_schedule_sets_it_anew(self) -> None:
        schedule = [
            {"at_epoch": 1, "train": "layer4", "lr_scale": 0.1},
            {"at_epoch": 2, "train": "layer4.0"},
            {"at_epoch": 3, "freeze": "layer4"},
        ]
        assert scales({"rules": [{"freeze": "layer4"}], "schedule": schedule}) == [
            {},
            dict.fromkeys(below("layer4"), 0.1),
            dict.fromkeys(below("layer4.1"), 0.1),
            {},
        ]

    @pytest.mark.parametrize(
        "later",
        [{"train": "layer4"}, {"train": "**", "lr_scale": 0.5}],
    )
    def test_a_scale_that_later_rules_replace_everywhere_is_refused(self, later: dict[str, Any]) -> None:
        refused = refusal({"rules": [{"train": "layer4", "lr_scale": 0.1}, later]})
        assert refused.code == "no_effect"
        assert refused.param == "freeze.rules[0].lr_scale"

    def test_a_scale_on_what_later_rules_freeze_is_refused(self) -> None:
        refused = refusal({"rules": [{"train": "layer4", "lr_scale": 0.1}, {"freeze": "layer4"}]})
        assert refused.param == "freeze.rules[0]"
        entries = [{"at_epoch": 1, "train": "fc", "lr_scale": 0.1}, {"at_epoch": 1, "train": "fc"}]
        assert refusal({"schedule": entries}).param == "freeze.schedule[0].lr_scale"

    def test_an_entry_that_repeats_a_scale_changes_nothing(self) -> None:
        freeze = {
            "rules": [{"train": "layer4", "lr_scale": 0.1}],
            "schedule": [{"at_epoch": 1, "train": "layer4.1", "lr_scale": 0.1}],
        }
        refused = refusal(freeze)
        assert refused.code == "no_effect"
        assert "at this learning rate" in refused.message


class TestLayerDecay:
    def test_the_head_learns_in_full_and_each_block_less_than_the_one_behind_it(self) -> None:
        (scale,) = scales({"layer_decay": 0.5})
        blocks = [*RESNET.blocks, "fc"]
        for depth, block in enumerate(reversed(blocks)):
            assert {scale.get(name, 1.0) for name in below(block)} == {0.5**depth}
        assert set(scale) == set(RESNET.names) - below("fc")

    def test_a_parameter_outside_of_every_block_goes_with_the_one_registered_before_it(self) -> None:
        tree = catalog.get("vit_b_16").tree
        (scale,) = scales({"layer_decay": 0.5}, tree)
        n = len(tree.blocks)
        assert tree.blocks[0] == "conv_proj"
        assert scale["class_token"] == scale["conv_proj.weight"] == 0.5**n
        assert scale["encoder.pos_embedding"] == 0.5**n
        assert scale["encoder.layers.encoder_layer_0.ln_1.weight"] == 0.5 ** (n - 1)
        assert "heads.head.weight" not in scale

    def test_auxiliary_heads_learn_in_full(self) -> None:
        tree = catalog.get("googlenet").tree
        (scale,) = scales({"layer_decay": 0.5}, tree)
        assert not {name for name in scale if name.startswith(("aux1.fc2.", "aux2.fc2.", "fc."))}
        assert scale["aux1.fc1.weight"] < 1

    def test_it_multiplies_the_scale_of_a_rule_and_leaves_frozen_parts_out(self) -> None:
        rules = [
            {"freeze": "layer1"},
            {"train": "layer4.1", "lr_scale": 0.1},
            {"train": "fc", "lr_scale": 3.0},
        ]
        (scale,) = scales({"rules": rules, "layer_decay": 0.5})
        assert scale["layer4.1.bn1.weight"] == pytest.approx(0.05)
        assert scale["fc.weight"] == 3.0
        assert not below("layer1") & set(scale)

    def test_a_product_of_1_is_left_out(self) -> None:
        (scale,) = scales({"rules": [{"train": "layer4.1", "lr_scale": 2.0}], "layer_decay": 0.5})
        assert not below("layer4.1") & set(scale)

    @pytest.mark.parametrize(
        "freeze",
        [
            {"layer_decay": 1.0},
            {"rules": [{"freeze": "**"}, {"train": "@head"}], "layer_decay": 0.5},
        ],
    )
    def test_a_decay_that_changes_nothing_is_refused(self, freeze: dict[str, Any]) -> None:
        refused = refusal(freeze)
        assert refused.code == "no_effect"
        assert refused.param == "freeze.layer_decay"

    def test_a_decay_that_a_later_phase_feels_is_fine(self) -> None:
        rules = [{"freeze": "**"}, {"train": "@head"}]
        schedule = [{"at_epoch": 1, "train": "last:1"}]
        first, second = scales({"rules": rules, "schedule": schedule, "layer_decay": 0.5})
        assert first == {}
        assert second == dict.fromkeys(below("layer4.1"), 0.5)

    def test_a_network_without_blocks_has_no_depth(self) -> None:
        tree = ModuleTree((ModuleInfo("", "Net", (TensorInfo("scale", (1,)),)),), {}, (), (), None)
        refused = refusal({"layer_decay": 0.5}, tree)
        assert refused.param == "freeze.layer_decay"
        assert "blocks" in refused.message

    def test_a_decay_to_next_to_nothing_is_refused(self) -> None:
        refused = refusal({"layer_decay": 0.0005})
        assert "'conv1.weight'" in refused.message
        deep = catalog.get("densenet201").tree
        assert min(scales({"layer_decay": 0.75}, deep)[0].values()) == 0.75**104

    def test_shared_parameters_go_with_their_first_place(self) -> None:
        layers = [ModuleInfo(path, "Linear", (TensorInfo("weight", (2, 2)),)) for path in ("a", "b", "fc")]
        tree = ModuleTree((ModuleInfo("", "Net"), *layers), {"b.weight": "a.weight"}, ("fc",), ("a", "b"), 2)
        assert scales({"layer_decay": 0.5}, tree) == [{"a.weight": 0.25}]
        assert scales({"layer_decay": 0.5}, replace(tree, blocks=("b", "a"))) == [{"a.weight": 0.5}]
