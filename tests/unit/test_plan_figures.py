"""What a plan says beside memory: the fixed prefix, normalisation layers, what a run writes."""

from __future__ import annotations

from typing import Any

from planned_network import HEAD_THEN_ALL, HEAD_THEN_ALL_BUT_CONV, subject

from shared.domain.plan import planned
from shared.domain.plan_figures import PlanFigures
from shared.domain.stored_plan import freeze_plan_in, to_show, to_store


def figures(*args: Any, **changes: Any) -> PlanFigures:
    return planned(subject(*args, **changes)).figures


class TestPrefix:
    def test_it_ends_where_the_first_part_trains(self) -> None:
        prefix = figures(["conv", "norm"]).prefix
        assert prefix is not None
        assert prefix.modules == ("conv", "norm")
        assert prefix.until == "scale"
        assert prefix.n_parameters == 60 + 10
        assert prefix.share_of_forward == 0.5  # 2,000 of the 4,000 bytes that the steps put out
        assert prefix.output_bytes_per_sample == 1_000

    def test_a_part_that_draws_in_training_mode_ends_it(self) -> None:
        # Dropout has no parameters, so that it follows the root, which trains.
        prefix = figures("backbone").prefix
        assert prefix is not None
        assert prefix.modules == ("conv", "norm", "scale")
        assert prefix.until == "drop"

    def test_statistics_that_go_on_counting_end_it(self) -> None:
        prefix = figures({"rules": [{"freeze": ["conv", "norm"]}], "batch_norm": "train"}).prefix
        assert prefix is not None
        assert prefix.modules == ("conv",)
        assert prefix.until == "norm"

    def test_nothing_is_fixed_where_everything_trains(self) -> None:
        prefix = figures("none").prefix
        assert prefix is not None
        assert (prefix.modules, prefix.until, prefix.share_of_forward) == ((), "conv", 0.0)

    def test_the_runs_prefix_is_what_every_phase_leaves_fixed(self) -> None:
        prefix = figures(HEAD_THEN_ALL_BUT_CONV).prefix
        assert prefix is not None
        assert prefix.modules == ("conv",)
        assert [phase.modules for phase in prefix.phases] == [("conv", "norm", "scale"), ("conv",)]
        assert [phase.from_epoch for phase in prefix.phases] == [0, 1]

    def test_other_pictures_in_each_epoch_are_pointed_out(self) -> None:
        prefix = figures("backbone", augment="flip").prefix
        assert prefix is not None
        assert "'flip'" in (prefix.note or "")

    def test_it_is_unknown_where_the_flow_is(self) -> None:
        assert figures(flow=None).prefix is None


class TestNormalisation:
    def test_layers_train_or_are_still(self) -> None:
        (none,) = figures("none").batch_norm.phases
        assert (none.n_training, none.n_still, none.n_exempt) == (1, 0, 0)
        (frozen,) = figures("backbone").batch_norm.phases
        assert (frozen.n_training, frozen.n_still, frozen.n_exempt) == (0, 1, 0)

    def test_exempted_ones_are_counted_apart(self) -> None:
        found = figures({"rules": [{"freeze": ["conv", "norm"]}], "batch_norm": "train"}).batch_norm
        assert found.policy == "train"
        (phase,) = found.phases
        assert (phase.n_training, phase.n_still, phase.n_exempt) == (0, 0, 1)


class TestSizes:
    def test_the_trained_part_is_what_any_phase_changes_beside_the_whole_models_header(self) -> None:
        head, all_of_it = figures("backbone").artifacts, figures("none").artifacts
        assert head.model_bytes == all_of_it.model_bytes
        assert all_of_it.trainable_bytes - head.trainable_bytes > 4 * (117 - 42)
        assert all_of_it.trainable_bytes > all_of_it.model_bytes

    def test_a_best_epoch_is_kept_only_where_one_can_be_told(self) -> None:
        assert figures(validates=False).checkpoint.best_bytes == 0
        assert figures(validates=True, keep="last").checkpoint.best_bytes == 0
        both = figures(validates=True).checkpoint
        assert both.best_bytes == both.moving_bytes

    def test_a_checkpoint_holds_what_any_phase_moves_and_the_largest_optimizer(self) -> None:
        alone = figures("backbone").checkpoint
        thawed = figures(HEAD_THEN_ALL).checkpoint
        assert alone.moving_bytes < 2 * 4 * 42 + 200
        assert thawed.moving_bytes > 4 * 117
        assert thawed.optimizer_bytes > 2 * 4 * 117

    def test_the_confusion_matrix_counts_where_there_is_one(self) -> None:
        with_matrix = figures(validates=True).checkpoint.other_bytes
        assert with_matrix > figures(validates=False).checkpoint.other_bytes
        assert with_matrix > figures(validates=True, task="multilabel").checkpoint.other_bytes


class TestAsAJobKeepsIt:
    def test_it_comes_back_as_it_was(self) -> None:
        plan = subject("backbone").plan.model_dump(mode="json")
        shown = {**plan, "memory": {"total_bytes": 3}, "fits": []}
        assert to_show(to_store(shown)) == shown
        assert freeze_plan_in(to_store(shown)) == subject("backbone").plan

    def test_a_job_from_before_there_were_figures_is_readable(self) -> None:
        old = subject("backbone").plan.model_dump(mode="json")
        assert to_show(old) == old
        assert freeze_plan_in(old) == subject("backbone").plan
