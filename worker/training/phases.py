"""The phases of a freeze plan, one after another: probed, wrapped for the ranks, and proved at its end."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shared.domain.freeze import PlanPhase
from shared.domain.training_result import FindUnused, PhaseAccount
from worker.training.evaluation import share_buffers
from worker.training.finite import check_weights
from worker.training.freezing import FrozenPart, frozen_part
from worker.training.own_steps.task import OwnSteps
from worker.training.own_steps.turns import StepsInTurn
from worker.training.proofs import digests, prove_frozen, prove_ranks_equal
from worker.training.run import Run
from worker.training.stepping import Stepper, TaskLoss

NOT_PROBED = FindUnused(value=False, reason="no step was made")


class Phases:
    """Where a run stands in its plan: the stepper of the phase at work, and what came of those before it."""

    def __init__(self, run: Run, epoch: int, saved: Mapping[str, Any] | None = None) -> None:
        """Begins the phase of `epoch`, or takes up the one that `saved` was made in, which may be over."""
        self._run = run
        self.accounts: list[PhaseAccount] = []
        self._recomputed: list[str] = []
        if saved is None:
            self._begin(run.phase_at(epoch))
            return
        self._begin(run.phase_at(saved["from_epoch"]))
        self._before.update({name: bytes.fromhex(value) for name, value in saved["frozen_before"].items()})
        self._find_unused = FindUnused.model_validate(saved["find_unused"])
        self._recomputed.extend(saved["recomputed"])
        self.accounts = [PhaseAccount.model_validate(account) for account in saved["accounts"]]
        self.stepper.go_on_from(saved)

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: plain values and tensors."""
        in_no_phase = self._run.frozen_before
        return {
            "find_unused": self._find_unused.model_dump(),
            "recomputed": self._recomputed,
            "frozen_before": {n: value.hex() for n, value in self._before.items() if n not in in_no_phase},
            "accounts": [account.model_dump() for account in self.accounts],
            **self.stepper.saved(),
        }

    def is_at(self, epoch: int) -> bool:
        """Whether the phase at work is the one that trains `epoch`."""
        return self.stepper.phase.from_epoch == self._run.phase_at(epoch).from_epoch

    def look_ahead(self, inputs: Tensor, target: Tensor) -> None:
        """Probes the later phases on the weights as they are: what would fail in hours fails now."""
        at_work = self.stepper.phase
        for phase in self._run.spec.freeze_plan.phases:
            if phase.from_epoch > at_work.from_epoch:
                self._probe(phase, inputs, target)
        self.stepper.apply(at_work)

    def wrap(self, inputs: Tensor, target: Tensor) -> None:
        """Probes what takes part in the loss, and joins the ranks' gradients accordingly."""
        phase, blocks = self.stepper.phase, self._run.recomputed
        before = {name: block.times for name, block in blocks.items()}
        self._find_unused = found = self._probe(phase, inputs, target)
        self._recomputed = [name for name, block in blocks.items() if block.times > before[name]]
        message = f"{self._when(phase)}find_unused_parameters {str(found.value).lower()}: {found.reason}"
        data = {"from_epoch": phase.from_epoch, **found.model_dump()}
        self._run.progress.note("find_unused_parameters", message, data)
        self.stepper.wrap(inputs, target, found)

    def move_on(self, epoch: int, step: int) -> None:
        """Proves the phase at work, and begins that of `epoch` with what the optimizer knows of its part."""
        over = self.end(step)
        gathered = self.stepper.saved()
        self._begin(self._run.phase_at(epoch))
        self.stepper.go_on_from(gathered)
        self._tell_of_change(over)
        # The first optimizer and the first DDP of a process import parts of torch that keep their callers'
        # frames in a cycle, and so the old stepper with its buckets and hooks. It has to go before the next.
        gc.collect()

    def end(self, step: int) -> PhaseAccount:
        """Proves what the phase at work claims, after `step` steps of the run. Buffers become rank 0's.

        Raises TrainingFailed where a frozen tensor moved, the ranks differ, or a value is not finite.
        """
        run, phase = self._run, self.stepper.phase
        self.stepper.apply(phase)
        share_buffers(run.model, run.ranks)
        check_weights(run, step)
        account = PhaseAccount(
            from_epoch=phase.from_epoch,
            n_trainable=phase.n_trainable,
            n_frozen=phase.n_frozen,
            find_unused_parameters=self._find_unused,
            frozen_proof=prove_frozen(run.model, self._frozen, self._before),
            ranks=prove_ranks_equal(run.model, run.ranks, step),
            recomputed=self._recomputed,
            steps=list(self.stepper.accounts),
        )
        self.accounts.append(account)
        return account

    def _begin(self, phase: PlanPhase) -> None:
        run = self._run
        self.stepper = _stepper(run, phase)
        self._find_unused = NOT_PROBED
        self._recomputed = []
        self._frozen: FrozenPart = frozen_part(run.model, [phase])
        # What no phase moves was hashed before the first step: against that it is proved in every phase.
        fresh = digests(run.model, self._frozen.names - run.frozen_before.keys())
        self._before: dict[str, bytes] = {**run.frozen_before, **fresh}

    def _tell_of_change(self, over: PhaseAccount) -> None:
        phase, proof = self.stepper.phase, over.frozen_proof
        kept = f"what was frozen before it is bit-identical ({proof.after[:12]})"
        was_any = proof.n_parameters + proof.n_buffers > 0
        message = (
            f"{self._when(phase)}{phase.n_trainable:,} parameters train from here on; "
            f"{kept if was_any else 'nothing was frozen before it'}"
        )
        data = {"n_trainable": phase.n_trainable, "n_frozen": phase.n_frozen, "before": over.model_dump()}
        self._run.progress.note("freeze_phase", message, {"from_epoch": phase.from_epoch, **data})

    def _probe(self, phase: PlanPhase, inputs: Tensor, target: Tensor) -> FindUnused:
        run = self._run
        asked = run.spec.freeze.find_unused_parameters
        return self.stepper.probe(phase, inputs, target, asked, self._when(phase))

    def _when(self, phase: PlanPhase) -> str:
        """The phase in words, where there are several."""
        phases = self._run.spec.freeze_plan.phases
        number = phases.index(phase) + 1
        return f"phase {number} of {len(phases)} (at_epoch {phase.from_epoch}): " if len(phases) > 1 else ""


def _stepper(run: Run, phase: PlanPhase) -> Stepper | StepsInTurn:
    if isinstance(run.task, OwnSteps):
        return StepsInTurn(run, phase)
    loss = TaskLoss(run.task, run.precision)
    return Stepper(run.model, phase, run.spec.hyperparameters, loss, run.ranks)
