"""A run from top to bottom: build, freeze, preflight, probe, wrap, train, save, capture activations.

The model that is saved is that of the best epoch (lowest validation loss) where there is validation data and
`keep` does not ask for the last one, else that of the last epoch.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from shared.domain.activations import SavedActivations
from shared.domain.events import OUTCOME_FILE, RESULT_FILE, OutcomeReport, TrainerSpec
from shared.domain.freeze_plan import PlanPhase, PlanStep
from shared.domain.job import Outcome, StopReason
from shared.domain.training_result import FrozenProof, PhaseAccount, TrainingResult
from worker.training.capture import Capture
from worker.training.checkpoint_folder import with_room
from worker.training.epochs import Epochs
from worker.training.files import write_json
from worker.training.finite import check_weights
from worker.training.progress import Progress
from worker.training.proofs import prove_frozen
from worker.training.ranks import Ranks
from worker.training.results import (
    decisions,
    find_unused_over,
    spec_in_result,
    versions,
    write_metrics,
    write_model,
)
from worker.training.run import Run, load_run
from worker.training.state import RunState, put_back


def train(spec: TrainerSpec, out: Path, ranks: Ranks) -> None:
    """Trains as `spec` says and leaves the results in `out`, or leaves early where stop.json asks for it."""
    with Progress(out, speaks=ranks.is_first) as progress:
        progress.enter("loading")
        run = load_run(spec, out, ranks, progress)
        epochs = Epochs(run)
        _say_what_is_frozen(run)

        progress.enter("preflight")
        epochs.check_output()
        capture = Capture(run)
        capture.check()

        progress.enter("probe")
        epochs.probe()

        progress.enter("training")
        stopped = epochs.train()
        if stopped is not None:
            _leave(run, stopped)
            return

        progress.enter("saving")
        phases = epochs.finish()
        proof = _save_model(run, epochs.state)
        captured = capture.take()
        if isinstance(captured, StopReason):
            _leave(run, captured)
        elif proof is not None:
            _save_result(run, epochs, phases, proof, captured)


def _say_what_is_frozen(run: Run) -> None:
    for phase in run.spec.freeze_plan.phases:
        whole = phase.n_trainable + phase.n_frozen
        run.progress.say(
            f"from epoch {phase.from_epoch + 1}: {phase.n_trainable:,} of {whole:,} parameters train "
            f"({len(phase.trainable)} tensors), {phase.n_frozen:,} are frozen ({len(phase.frozen)} tensors), "
            f"{len(phase.still)} modules are still"
        )
        for step in phase.steps:
            _say_what_a_step_trains(run, phase, step)
    held_out = f", {run.data.n_validation} for validation" if run.data.validation else ""
    run.progress.say(f"{len(run.data.order.indices)} pictures to train on{held_out}")


def _say_what_a_step_trains(run: Run, phase: PlanPhase, step: PlanStep) -> None:
    when = f"from epoch {phase.from_epoch + 1}: the training step {step.name!r}"
    if step.is_left_out:
        message = f"{when} is left out, as all that it would train is frozen"
        run.progress.note("step_left_out", message, {"from_epoch": phase.from_epoch, "step": step.name})
    else:
        run.progress.say(f"{when} trains {step.n_trainable:,} parameters ({len(step.trainable)} tensors)")


def _write(run: Run, name: str, shape: BaseModel) -> None:
    with_room(run.out, lambda: write_json(run.out / name, shape))


def _leave(run: Run, reason: StopReason) -> None:
    """Each node is told how its ranks left; the checkpoint is rank 0's."""
    run.progress.say(f"stopped: {reason}")
    if run.ranks.is_first_of_node:
        _write(run, OUTCOME_FILE, OutcomeReport(outcome=Outcome.STOPPED, reason=reason))


def _save_model(run: Run, state: RunState) -> FrozenProof | None:
    """The model that is kept, proved and written; None on all ranks but the first."""
    if not run.ranks.is_first:
        return None
    if state.kept is not None and state.kept.moving is not None:
        put_back(run.model, state.kept.moving)
    check_weights(run, state.step)
    proof = prove_frozen(run.model, run.frozen, run.frozen_before)
    with_room(run.out, lambda: write_model(run))
    return proof


def _save_result(
    run: Run,
    epochs: Epochs,
    phases: list[PhaseAccount],
    proof: FrozenProof,
    captured: SavedActivations | None,
) -> None:
    state = epochs.state
    run.progress.count_time()
    last_phase = run.phase_at(max(0, state.epoch - 1))
    result = TrainingResult(
        job_id=run.spec.job_id,
        spec=spec_in_result(run.spec),
        freeze_plan=run.spec.freeze_plan,
        find_unused_parameters=find_unused_over(phases),
        frozen_proof=proof,
        ranks=phases[-1].ranks,
        phases=phases,
        n_trainable=last_phase.n_trainable,
        n_frozen=last_phase.n_frozen,
        n_train_samples=len(run.data.order.indices),
        n_validation_samples=run.data.n_validation,
        skipped_images=run.data.skipped,
        epochs=state.history,
        best_epoch=state.kept_epoch if state.best_epoch is None else state.best_epoch,
        kept_epoch=state.kept_epoch,
        stopped_early=epochs.stopped_early,
        evaluation=state.kept.evaluation if state.kept else None,
        activations=captured,
        changes=state.changes,
        seconds={phase: round(seconds, 3) for phase, seconds in run.progress.seconds.items()},
        versions=versions(),
        decisions=decisions(run, state, phases),
    )
    with_room(run.out, lambda: write_metrics(run.out, state.history))
    _write(run, RESULT_FILE, result)
    _write(run, OUTCOME_FILE, OutcomeReport(outcome=Outcome.SUCCEEDED))
    run.progress.say(f"done: the frozen part is bit-identical ({proof.before[:12]}), the results are written")
