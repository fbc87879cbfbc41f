"""What a freeze spec means for torchvision's networks, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.freeze import FreezePlan, FreezeSpec, PlanPhase, parse_freeze, resolve
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo

RESNET = catalog.get("resnet18").tree


def phase(freeze: Any, tree: ModuleTree = RESNET, *, head_replaced: bool = False) -> PlanPhase:
    (only,) = resolve(parse_freeze(freeze), tree, head_replaced=head_replaced).phases
    return only


def refusal(freeze: Any, tree: ModuleTree = RESNET, *, head_replaced: bool = False) -> Invalid:
    with pytest.raises(Invalid) as refused:
        resolve(parse_freeze(freeze), tree, head_replaced=head_replaced)
    return refused.value


class TestWhatIsFrozen:
    def test_backbone_trains_the_head_alone(self) -> None:
        plan = phase("backbone")
        assert plan.trainable == ("fc.weight", "fc.bias")
        assert len(plan.frozen) == 60
        assert plan.n_trainable == 512 * 1000 + 1000
        assert plan.n_frozen == 11_176_512
        in_training = {module.path for module in RESNET.modules} - set(plan.still)
        assert in_training == {"", "relu", "maxpool", "avgpool", "fc"}

    @pytest.mark.parametrize("freeze", ["none", None, {}, {"rules": []}])
    def test_nothing_is_frozen_where_nothing_is_asked(self, freeze: Any) -> None:
        plan = phase(freeze)
        assert plan.frozen == ()
        assert plan.still == ()
        assert plan.trainable == tuple(RESNET.shapes)

    def test_a_list_is_one_freeze_rule(self) -> None:
        assert phase(["conv1", "bn1"]) == phase({"rules": [{"freeze": ["conv1", "bn1"]}]})

    def test_a_part_of_the_name_as_in_python(self) -> None:
        plan = phase(["name:conv1"])
        assert plan.frozen == tuple(name for name in RESNET.shapes if "conv1" in name)
        assert len(plan.frozen) == 9

    def test_the_last_matching_rule_wins(self) -> None:
        rules = [{"freeze": "**"}, {"train": "layer4"}, {"freeze": "layer4.0"}, {"train": "@head"}]
        trainable = phase({"rules": rules}).trainable
        assert {name.rsplit(".", 2)[0] for name in trainable if name.startswith("layer4")} == {"layer4.1"}
        assert "fc.weight" in trainable

    def test_auxiliary_heads_belong_to_the_head(self) -> None:
        plan = phase("backbone", catalog.get("googlenet").tree)
        heads = ("aux1.fc2", "aux2.fc2", "fc")
        assert plan.trainable == tuple(f"{head}.{kind}" for head in heads for kind in ("weight", "bias"))


class TestStillModules:
    def test_a_thawed_layer_in_a_frozen_block_trains_and_its_siblings_stay_still(self) -> None:
        rules = [{"freeze": "**"}, {"train": "layer4.1.bn2"}, {"train": "@head"}]
        still = phase({"rules": rules}).still
        assert not {"", "layer4", "layer4.1", "layer4.1.bn2", "fc"} & set(still)
        assert {"layer4.0", "layer4.1.bn1", "layer4.1.conv2", "layer1", "conv1"} <= set(still)

    def test_a_module_without_parameters_follows_its_nearest_ancestor_that_has_some(self) -> None:
        still = phase(["layer1"]).still
        assert "layer1.0.relu" in still
        assert "layer2.0.relu" not in still
        assert "relu" not in still
        assert "maxpool" not in still

    def test_batch_norm_train_exempts_normalisation_layers_alone_and_lists_what_is_not_proved(self) -> None:
        still = set(phase(["layer1"]).still)
        moving = phase({"rules": [{"freeze": "layer1"}], "batch_norm": "train"})
        norms = ("layer1.0.bn1", "layer1.0.bn2", "layer1.1.bn1", "layer1.1.bn2")
        assert still - set(moving.still) == set(norms)
        assert moving.unproved_buffers == norms
        assert moving.frozen == phase(["layer1"]).frozen

    def test_every_kind_of_normalisation_with_statistics_is_exempt_and_no_other(self) -> None:
        kinds = ("SyncBatchNorm", "InstanceNorm2d", "FrozenBatchNorm2d", "LayerNorm", "BatchNorm3d")
        scale = (TensorInfo("weight", (2,)),)
        mean = (TensorInfo("running_mean", (2,)),)
        tree = ModuleTree(
            modules=(
                ModuleInfo("", "Net"),
                *(ModuleInfo(kind, kind, scale, () if kind == "InstanceNorm2d" else mean) for kind in kinds),
                ModuleInfo("fc", "Linear", (TensorInfo("weight", (2, 2)),)),
            ),
            aliases={},
            head=("fc",),
            blocks=(),
            num_classes=2,
        )
        plan = phase({"rules": [{"freeze": "**"}, {"train": "@head"}], "batch_norm": "train"}, tree)
        assert plan.still == ("FrozenBatchNorm2d", "LayerNorm")
        assert plan.unproved_buffers == ("SyncBatchNorm", "BatchNorm3d")

    def test_batch_norm_train_that_changes_nothing_is_refused(self) -> None:
        assert refusal({"batch_norm": "train"}).param == "freeze.batch_norm"
        vit = catalog.get("vit_b_16").tree
        assert refusal({"rules": [{"freeze": "conv_proj"}], "batch_norm": "train"}, vit).code == "no_effect"


class TestRefusals:
    def test_a_pattern_that_matches_nothing_names_the_nearest(self) -> None:
        refused = refusal({"rules": [{"freeze": "conv1"}, {"freeze": ["bn1", "layer4.1.conv9"]}]})
        assert refused.param == "freeze.rules[1].freeze[1]"
        assert refused.code == "pattern_matches_nothing"
        assert "layer4.1.conv1" in refused.message
        assert "layer4.1.conv2" in refused.message

    def test_a_substring_that_matches_nothing_names_the_nearest(self) -> None:
        assert "layer4.0.downsample" in refusal(["name:layer4.0.downsampel"]).message

    def test_a_module_without_parameters_is_told_apart(self) -> None:
        assert "without parameters" in refusal(["maxpool"]).message

    def test_a_model_without_a_head_has_no_head_to_train(self) -> None:
        tree = ModuleTree((ModuleInfo("", "N", (TensorInfo("scale", (1,)),)),), {}, (), (), None)
        assert "no known head" in refusal("backbone", tree).message

    @pytest.mark.parametrize(
        ("rules", "index"),
        [
            ([{"train": "@head"}, {"freeze": "**"}], 0),
            ([{"freeze": "layer1"}, {"train": "layer1"}], 0),
            ([{"freeze": "conv1"}, {"freeze": "layer1.0"}, {"train": "layer1"}], 1),
        ],
    )
    def test_a_rule_that_later_rules_undo(self, rules: list[dict[str, str]], index: int) -> None:
        refused = refusal({"rules": rules})
        assert refused.code == "freeze_rule_undone"
        assert refused.param == f"freeze.rules[{index}]"

    def test_a_rule_that_a_later_one_repeats_or_undoes_in_part_is_fine(self) -> None:
        assert phase({"rules": [{"freeze": "layer1.0"}, {"freeze": "layer1"}]}) == phase(["layer1"])
        assert phase({"rules": [{"freeze": "layer1"}, {"train": "layer1.0"}]}) == phase(["layer1.1"])

    def test_nothing_left_to_train(self) -> None:
        assert refusal(["**"]).code == "nothing_trainable"

    def test_a_new_head_that_would_stay_random(self) -> None:
        assert refusal(["fc"], head_replaced=True).code == "new_head_frozen"
        assert refusal(["aux1"], catalog.get("googlenet").tree, head_replaced=True).code == "new_head_frozen"
        assert "fc.weight" in phase(["fc"]).frozen
        assert phase("backbone", head_replaced=True).trainable == ("fc.weight", "fc.bias")


class TestReading:
    @pytest.mark.parametrize(
        ("freeze", "param", "words"),
        [
            ("conv1", "freeze", '"conv1"'),
            ("", "freeze", "shorthand"),
            ([], "freeze.rules[0].freeze", "at least 1"),
            ([""], "freeze.rules[0].freeze[0]", "at least 1"),
            ([3], "freeze.rules[0].freeze[0]", "string"),
            (["re:\ud800"], "freeze.rules[0].freeze[0]", "unicode"),
            (7, "freeze", "a list of patterns"),
            ({"rule": []}, "freeze.rule", "known are rules"),
            ({"rules": [{"freeze": "a", "when": 1}]}, "freeze.rules[0].when", "known are freeze"),
            ({"rules": [{}]}, "freeze.rules[0]", "either"),
            ({"rules": [{"freeze": "a", "train": "b"}]}, "freeze.rules[0]", "either"),
            ({"batch_norm": "eval"}, "freeze.batch_norm", "freeze"),
            ({"find_unused_parameters": "yes"}, "freeze.find_unused_parameters", "auto"),
            ({"find_unused_parameters": 1}, "freeze.find_unused_parameters", "auto"),
            ({"rules": [{"freeze": "a" * 301}]}, "freeze.rules[0].freeze[0]", "300"),
            ({"rules": [{"freeze": ["a"] * 2001}]}, "freeze.rules", "too many"),
            ({"rules": [{"freeze": ["*"] * 201}]}, "freeze.rules", "too many"),
            ({"rules": [{"freeze": ["re:a"] * 201}]}, "freeze.rules", "too many"),
            ({"schedule": [{"at_epoch": 1, "train": ["*"] * 201}]}, "freeze.rules", "too many"),
            ({"schedule": [{"at_epoch": e, "train": "a"} for e in range(1, 130)]}, "freeze.schedule", "129"),
            ({"schedule": [{"train": "a"}]}, "freeze.schedule[0].at_epoch", "required"),
            ({"schedule": [{"at_epoch": 0, "train": "a"}]}, "freeze.schedule[0].at_epoch", "as a rule"),
            ({"schedule": [{"at_epoch": -1, "train": "a"}]}, "freeze.schedule[0].at_epoch", "equal to 1"),
            ({"schedule": [{"at_epoch": "1", "train": "a"}]}, "freeze.schedule[0].at_epoch", "integer"),
            ({"schedule": [{"at_epoch": True, "train": "a"}]}, "freeze.schedule[0].at_epoch", "integer"),
            ({"schedule": [{"at_epoch": 1.5, "train": "a"}]}, "freeze.schedule[0].at_epoch", "integer"),
            ({"schedule": [{"at_epoch": 1, "x": "a"}]}, "freeze.schedule[0].x", "at_epoch"),
            ({"schedule": [{"at_epoch": 1}]}, "freeze.schedule[0]", "either"),
            ({"schedule": [{"at_epoch": 1, "train": "a..b"}]}, "freeze.schedule[0].train[0]", "empty part"),
            ({"rules": [{"freeze": "a", "lr_scale": 0.1}]}, "freeze.rules[0].lr_scale", "goes with 'train'"),
            (
                {"schedule": [{"at_epoch": 1, "freeze": "a", "lr_scale": 2}]},
                "freeze.schedule[0].lr_scale",
                "goes with 'train'",
            ),
            ({"rules": [{"train": "a", "lr_scale": 0}]}, "freeze.rules[0].lr_scale", "greater than"),
            ({"rules": [{"train": "a", "lr_scale": "1"}]}, "freeze.rules[0].lr_scale", "number"),
            ({"rules": [{"train": "a", "lr_scale": 1e4}]}, "freeze.rules[0].lr_scale", "1000"),
            ({"layer_decay": 0}, "freeze.layer_decay", "greater than 0"),
            ({"layer_decay": 1.5}, "freeze.layer_decay", "equal to 1"),
            ({"layer_decay": True}, "freeze.layer_decay", "number"),
        ],
    )
    def test_what_cannot_be_read_is_refused_where_it_stands(
        self, freeze: Any, param: str, words: str
    ) -> None:
        with pytest.raises(Invalid, match=words) as refused:
            parse_freeze(freeze)
        assert refused.value.param is not None
        assert refused.value.param.startswith(param)

    @pytest.mark.parametrize("value", ["auto", True, False])
    def test_unused_parameters_may_be_forced(self, value: Any) -> None:
        assert parse_freeze({"find_unused_parameters": value}).find_unused_parameters == value

    def test_a_spec_is_itself_after_json(self) -> None:
        spec = parse_freeze(
            {
                "rules": [{"freeze": "**"}, {"train": ["@head", "layer4"], "lr_scale": 0.5}],
                "batch_norm": "train",
                "schedule": [{"at_epoch": 2, "train": "type:Bottleneck"}],
                "layer_decay": 0.75,
            }
        )
        assert parse_freeze(spec.model_dump(mode="json")) == spec
        assert parse_freeze(spec) is spec

    def test_a_plan_is_itself_after_json(self) -> None:
        plan = resolve(parse_freeze("backbone"), RESNET)
        assert FreezePlan.model_validate_json(plan.model_dump_json()) == plan

    def test_the_schema_shows_the_shorthands(self) -> None:
        class Body(BaseModel):
            freeze: FreezeSpec

        words, names, _ = Body.model_json_schema()["$defs"]["FreezeSpec"]["anyOf"]
        assert words["enum"] == ["backbone", "none"]
        assert names["type"] == "array"
