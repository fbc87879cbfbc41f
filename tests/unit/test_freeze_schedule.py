"""Schedules of the freeze language: phases, what they thaw and freeze again, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.freeze import FreezePlan, parse_freeze, resolve
from shared.domain.module_tree import ModuleTree

RESNET = catalog.get("resnet18").tree
BACKBONE = [{"freeze": "**"}, {"train": "@head"}]
HEAD = {"fc.weight", "fc.bias"}

Entry = dict[str, Any]


def planned(schedule: list[Entry], rules: list[Entry] | None = None, **options: Any) -> FreezePlan:
    freeze = {"rules": BACKBONE if rules is None else rules, "schedule": schedule}
    return resolve(parse_freeze(freeze), RESNET, **options)


def refusal(schedule: list[Entry], rules: list[Entry] | None = None, **options: Any) -> Invalid:
    with pytest.raises(Invalid) as refused:
        planned(schedule, rules, **options)
    return refused.value


def below(*paths: str, tree: ModuleTree = RESNET) -> set[str]:
    return {name for name in tree.names if any(name.startswith(f"{path}.") for path in paths)}


class TestPhases:
    def test_a_schedule_thaws_from_the_start_of_its_epochs_on(self) -> None:
        plan = planned([{"at_epoch": 2, "train": "layer4"}, {"at_epoch": 5, "train": ["layer3", "layer2"]}])
        assert [phase.from_epoch for phase in plan.phases] == [0, 2, 5]
        trained = [set(phase.trainable) for phase in plan.phases]
        assert trained == [HEAD, HEAD | below("layer4"), HEAD | below("layer2", "layer3", "layer4")]
        assert "layer4.0.bn1" in plan.phases[0].still
        assert "layer4.0.bn1" not in plan.phases[1].still
        for phase in plan.phases:
            assert set(phase.trainable) | set(phase.frozen) == set(RESNET.names)
            assert phase.n_trainable + phase.n_frozen == 11_689_512

    def test_without_a_schedule_there_is_one_phase(self) -> None:
        assert [phase.from_epoch for phase in planned([]).phases] == [0]

    def test_it_freezes_again(self) -> None:
        plan = planned([{"at_epoch": 1, "train": "layer4"}, {"at_epoch": 2, "freeze": "layer4"}])
        assert plan.phases[2].trainable == plan.phases[0].trainable
        assert plan.phases[2].still == plan.phases[0].still

    def test_entries_stand_in_any_order_and_those_of_one_epoch_in_theirs(self) -> None:
        schedule = [
            {"at_epoch": 4, "train": "layer1"},
            {"at_epoch": 2, "train": "layer4"},
            {"at_epoch": 2, "freeze": "layer4.0"},
        ]
        plan = planned(schedule)
        assert [phase.from_epoch for phase in plan.phases] == [0, 2, 4]
        assert set(plan.phases[1].trainable) == HEAD | below("layer4.1")
        assert set(plan.phases[2].trainable) == HEAD | below("layer4.1", "layer1")

    def test_a_later_phase_may_override_a_rule(self) -> None:
        plan = planned([{"at_epoch": 1, "train": "**"}], [{"freeze": "layer1"}])
        assert plan.phases[1].frozen == ()

    def test_a_head_may_be_frozen_once_it_has_trained(self) -> None:
        schedule = [{"at_epoch": 1, "train": "layer4"}, {"at_epoch": 2, "freeze": "@head"}]
        plan = planned(schedule, head_replaced=True)
        assert set(plan.phases[2].trainable) == below("layer4")

    def test_the_last_epoch_may_have_a_phase_of_its_own(self) -> None:
        assert len(planned([{"at_epoch": 2, "train": "layer4"}], n_epochs=3).phases) == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("n_epochs", "words"), [(3, "the last one is epoch 2"), (1, "its one epoch is epoch 0")]
    )
    def test_an_epoch_that_the_job_does_not_reach(self, n_epochs: int, words: str) -> None:
        refused = refusal([{"at_epoch": 3, "train": "layer4"}], n_epochs=n_epochs)
        assert refused.code == "epoch_past_end"
        assert refused.param == "freeze.schedule[0].at_epoch"
        assert words in refused.message

    def test_a_pattern_that_matches_nothing_in_its_own_place(self) -> None:
        schedule = [
            {"at_epoch": 4, "train": "layer3"},
            {"at_epoch": 2, "train": ["layer4", "layer4.1.conv9"]},
        ]
        refused = refusal(schedule)
        assert refused.param == "freeze.schedule[1].train[1]"
        assert "'layer4.1.conv9'" in refused.message
        assert "layer4.1.conv1" in refused.message

    def test_a_phase_that_freezes_everything_names_its_epoch(self) -> None:
        schedule = [{"at_epoch": 3, "train": "layer4"}, {"at_epoch": 7, "freeze": "**"}]
        refused = refusal(schedule)
        assert refused.code == "nothing_trainable"
        assert refused.param == "freeze.schedule[1]"
        assert "from epoch 7 on" in refused.message

    def test_a_beginning_without_training_is_refused_though_it_thaws_later(self) -> None:
        assert refusal([{"at_epoch": 3, "train": "layer4"}], [{"freeze": "**"}]).code == "nothing_trainable"

    def test_a_new_head_that_is_frozen_until_a_later_epoch(self) -> None:
        refused = refusal([{"at_epoch": 1, "train": "fc"}], [{"freeze": "fc"}], head_replaced=True)
        assert refused.code == "new_head_frozen"

    def test_entries_of_one_epoch_that_undo_one_another(self) -> None:
        schedule = [{"at_epoch": 2, "train": "layer4.1"}, {"at_epoch": 2, "freeze": "layer4"}]
        refused = refusal(schedule)
        assert refused.code == "freeze_rule_undone"
        assert refused.param == "freeze.schedule[0]"
        assert "epoch 2" in refused.message

    @pytest.mark.parametrize(
        ("schedule", "place"),
        [
            ([{"at_epoch": 2, "freeze": "layer4"}], 0),
            ([{"at_epoch": 2, "train": "fc"}], 0),
            ([{"at_epoch": 2, "train": "layer4"}, {"at_epoch": 2, "train": "layer4.0"}], 1),
            ([{"at_epoch": 5, "train": "layer4.0"}, {"at_epoch": 2, "train": "layer4"}], 0),
        ],
    )
    def test_an_entry_that_changes_nothing(self, schedule: list[Entry], place: int) -> None:
        refused = refusal(schedule)
        assert refused.code == "no_effect"
        assert refused.param == f"freeze.schedule[{place}]"
        assert f"epoch {schedule[place]['at_epoch']}" in refused.message

    def test_entries_that_together_change_nothing(self) -> None:
        rules = [{"freeze": "layer1"}]
        schedule = [{"at_epoch": 2, "freeze": "layer1.*.conv1"}, {"at_epoch": 2, "train": "layer4"}]
        assert refusal(schedule, rules).param == "freeze.schedule[0]"
        mixed = [{"at_epoch": 2, "train": ["layer1.0", "fc"]}, {"at_epoch": 2, "freeze": "layer1"}]
        refused = refusal(mixed, rules)
        assert refused.code == "no_effect"
        assert "leave everything as it was" in refused.message

    def test_a_rule_that_is_undone_before_any_epoch_ran(self) -> None:
        refused = refusal([{"at_epoch": 1, "freeze": "layer1"}], [{"freeze": "layer1"}, {"train": "layer1"}])
        assert refused.param == "freeze.rules[0]"
