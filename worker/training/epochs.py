"""Epoch after epoch: train, evaluate, keep a model, write checkpoints, stop when asked or no better."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from shared.domain.events import ValidationLine
from shared.domain.job import StopReason
from shared.domain.training_result import Evaluation, PhaseAccount
from worker.training.changed import from_the_start
from worker.training.errors import TrainingFailed
from worker.training.evaluation import evaluate
from worker.training.files import unless_disk_full
from worker.training.finite import bad_loss, check_evaluation
from worker.training.mixing import check_samples_apart
from worker.training.own_steps.evaluation import evaluate_steps
from worker.training.own_steps.preflight import check_steps
from worker.training.own_steps.task import OwnSteps
from worker.training.own_steps.turns import running
from worker.training.pace import Pace
from worker.training.phases import Phases
from worker.training.preflight import check_output
from worker.training.proofs import prove_ranks_equal
from worker.training.recomputation import check_has_effect
from worker.training.results import write_metrics
from worker.training.resuming import (
    CheckpointWriter,
    TakenUp,
    check_same_start,
    set_generators,
    take_up,
)
from worker.training.run import Run
from worker.training.schedule import learning_rate
from worker.training.state import Kept, RunState, moving_tensors
from worker.training.stop import Agreement, Boundary, Sums, stop_file_in


class Epochs:
    """The moving part of a run: where it stands, and what carries it on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._taken_up: TakenUp | None = None
        self.state = RunState(changes=from_the_start(run.spec.changes))
        if run.spec.resume_from is not None:
            self.state, self._taken_up = take_up(run, Path(run.spec.resume_from))
        check_same_start(run, self.state.step)
        settings = run.spec.hyperparameters
        self._phases = Phases(run, self.state.epoch, self._taken_up.phase if self._taken_up else None)
        self._checkpoints = CheckpointWriter(run)
        self._boundary = Boundary(run.ranks, stop_file_in(run.out), run.time_limit())
        self._pace = Pace(run.progress, run.task.figures, settings.n_epochs, run.total_steps, self.state.step)
        self._ranks_were_compared = False

    # -- before training

    def check_output(self) -> None:
        """Refuses a model that answers a real batch, in training or in use, otherwise than row by row."""
        run, (inputs, target) = self._run, self._a_batch()
        if isinstance(run.task, OwnSteps):
            check_steps(run, inputs, target)
        else:
            check_output(run.model, inputs, run.task, run.precision)
            run.model.eval()
            check_output(run.model, inputs, run.task, run.precision)
            check_samples_apart(run.model, inputs, run.task)
        self._phases.stepper.apply(self._phases.stepper.phase)

    def probe(self) -> None:
        """Probes all phases to come, and makes ready for the first of them."""
        if not self._is_over():
            self._phases.look_ahead(*self._a_batch())
            self._enter_phase()
        # Later on, phases that needed it may be over.
        if self._run.spec.hyperparameters.gradient_checkpointing and self.state.step == 0:
            check_has_effect(self._run.recomputed)

    # -- training

    def train(self) -> StopReason | None:
        """Trains to the end, or until a stop is agreed on, and says which: None is the end."""
        set_generators(self._run, self._taken_up)
        self._pace.start()
        stopped = self._heed(self._boundary.meet())
        while stopped is None and not self._is_over():
            stopped = self._train_epoch()
            if stopped is None:
                self._finish_epoch()
        return stopped

    @property
    def stopped_early(self) -> bool:
        """Whether epochs were left out, as validation had not improved for as long as the person allows."""
        settings = self._run.spec.hyperparameters
        patience = settings.early_stopping_patience
        has_left = self.state.epoch < settings.n_epochs
        return has_left and patience is not None and self.state.epochs_since_best() >= patience

    def finish(self) -> list[PhaseAccount]:
        """After the last step: proves the last phase, and tells of all."""
        self._phases.end(self.state.step)
        return self._phases.accounts

    def _is_over(self) -> bool:
        return self.state.epoch >= self._run.spec.hyperparameters.n_epochs or self.stopped_early

    def _train_epoch(self) -> StopReason | None:
        run, state = self._run, self.state
        if not self._phases.is_at(state.epoch):
            self._enter_phase()
        order = run.data.order
        batches = order.batches(state.epoch, run.ranks.rank, state.step_in_epoch)
        for batch in run.data.batches.load(batches, state.epoch):
            inputs, target = run.on_device(batch)
            loss, counted = self._phases.stepper.step(inputs, target, state.step, run.total_steps)
            state.step += 1
            state.step_in_epoch += 1
            self._boundary.count(state.step, loss, counted, len(inputs))
            if not self._ranks_were_compared:
                prove_ranks_equal(run.model, run.ranks, state.step)
                self._ranks_were_compared = True
            if self._boundary.is_due or state.step_in_epoch == order.steps_per_epoch:
                self._phases.stepper.check_gradients(state.step)
                stopped = self._heed(self._boundary.meet())
                if stopped is not None:
                    return stopped
        return None

    def _heed(self, agreed: Agreement) -> StopReason | None:
        """Counts what was agreed on and does what it asks for."""
        state = self.state
        if agreed.bad_loss is not None:
            figures = [name for name, value in agreed.sums.figures.items() if not math.isfinite(value)]
            raise bad_loss(self._run, agreed.bad_loss, figures)
        state.partial.add(agreed.sums)
        ends_epoch = state.step_in_epoch == self._run.data.order.steps_per_epoch
        self._pace.count(agreed.sums, state, self._learning_rate, ends_epoch=ends_epoch)
        if agreed.time_is_up:
            limit = self._run.spec.max_duration_s
            raise TrainingFailed(
                f"the job was not done after max_duration_s, {limit:g} s, at step {state.step}",
                code="time_limit",
            )
        # At the end of an epoch its own follows: two of one step would share a folder.
        is_due = agreed.checkpoint_is_due and not ends_epoch
        if is_due or agreed.stop not in (None, StopReason.CANCEL):
            self._write_checkpoint(is_best=False)
        return agreed.stop

    def _write_checkpoint(self, *, is_best: bool) -> None:
        self._checkpoints.write(self.state, self._phases, is_best=is_best)
        self._boundary.checkpoint_was_written()

    def _finish_epoch(self) -> None:
        state = self.state
        evaluation = self._evaluate()
        state.history.append(self._account(evaluation))
        is_best = state.best_epoch == state.epoch
        self._tell(evaluation, is_best=is_best)
        state.epoch += 1
        state.step_in_epoch = 0
        state.partial = Sums()
        if evaluation is not None and (is_best or self._keeps_last):
            self._keep(evaluation)
        self._write_checkpoint(is_best=is_best)

    def _evaluate(self) -> Evaluation | None:
        run = self._run
        if run.data.validation is None:
            return None
        per_rank = run.spec.hyperparameters.batch_size // run.ranks.world_size
        if isinstance(run.task, OwnSteps):
            steps = running(self._phases.stepper.phase)
            evaluation = evaluate_steps(run, run.data.validation, steps, 2 * per_rank)
        else:
            evaluation = evaluate(
                run.model,
                run.data.validation,
                run.task,
                2 * per_rank,
                run.normalize,
                run.precision,
                run.ranks,
            )
        check_evaluation(run, evaluation, self.state.step)
        self._phases.stepper.back_to_training()
        return evaluation

    @property
    def _keeps_last(self) -> bool:
        return self._run.spec.hyperparameters.keep == "last"

    def _keep(self, evaluation: Evaluation) -> None:
        run, state = self._run, self.state
        needs_copy = run.ranks.is_first and not self._keeps_last
        moving = moving_tensors(run.model, run.frozen.names) if needs_copy else None
        state.kept = Kept(state.epoch - 1, state.step, evaluation, moving)

    def _enter_phase(self) -> None:
        """Makes ready for the steps that come; before those of a new phase, the last one is proved."""
        if not self._phases.is_at(self.state.epoch):
            self._phases.move_on(self.state.epoch, self.state.step)
        self._phases.wrap(*self._a_batch())
        self._ranks_were_compared = False

    def _a_batch(self) -> tuple[Tensor, Tensor]:
        """The batch that this rank trains on first."""
        run = self._run
        first = run.data.order.batches(self.state.epoch, run.ranks.rank)
        return run.on_device(next(iter(run.data.batches.load([next(first)], self.state.epoch))))

    @property
    def _learning_rate(self) -> float:
        """Of the last step, where no scale applies."""
        run = self._run
        return learning_rate(run.spec.hyperparameters, max(0, self.state.step - 1), run.total_steps)

    # -- telling

    def _account(self, evaluation: Evaluation | None) -> dict[str, Any]:
        """The epoch's entry in the history."""
        state = self.state
        entry = {
            "epoch": state.epoch,
            "step": state.step,
            "train_loss": state.partial.mean_loss,
            **{f"train_{name}": mean for name, mean in state.partial.means.items()},
            "learning_rate": self._learning_rate,
        }
        if evaluation is not None:
            entry["validation_loss"] = evaluation.loss
            entry |= {f"validation_{name}": value for name, value in evaluation.metrics.items()}
        return entry

    def _tell(self, evaluation: Evaluation | None, *, is_best: bool) -> None:
        run, state = self._run, self.state
        said = f"loss {state.partial.mean_loss:.4f}{_in_words(state.partial.means)}"
        if evaluation is not None:
            said += f"  validation loss {evaluation.loss:.4f}{_in_words(evaluation.metrics)}"
            self._write_validation_line(evaluation, is_best=is_best)
        if run.ranks.is_first:
            with unless_disk_full():
                write_metrics(run.out, state.history)
        n_epochs = run.spec.hyperparameters.n_epochs
        run.progress.say(f"epoch {state.epoch + 1}/{n_epochs}  {said}{'  best so far' if is_best else ''}")

    def _write_validation_line(self, evaluation: Evaluation, *, is_best: bool) -> None:
        self._run.progress.write(
            ValidationLine(
                time=time.time(),
                epoch=self.state.epoch,
                step=self.state.step,
                loss=evaluation.loss,
                accuracy=evaluation.accuracy,
                metrics=evaluation.metrics,
                main_metric=evaluation.main_metric,
                n_samples=evaluation.n_samples,
                is_best=is_best,
            )
        )


def _in_words(figures: Mapping[str, float]) -> str:
    return "".join(f"  {name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
