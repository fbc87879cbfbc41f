"""Numbers that are not finite: told with their step, and kept out of every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shared.domain.training_result import Evaluation
from worker.training.errors import TrainingFailed
from worker.training.run import Run
from worker.training.schedule import learning_rate
from worker.training.stop import BadLoss

LOSS = "non_finite_loss"
GRADIENTS = "non_finite_gradients"
# GradScaler halves its scale at each step that overflows: from 2**16 down to here it is some 30 in a row.
SMALLEST_SCALE = 1e-4


def bad_loss(run: Run, bad: BadLoss, figures: Sequence[str]) -> TrainingFailed:
    """`figures` name the losses of the network's own steps, where it was one of those."""
    which = f" ({', '.join(figures)})" if figures else ""
    where = f"at step {bad.step} (epoch {_epoch(run, bad.step)})"
    on_rank = "" if run.ranks.is_alone else f" on rank {bad.rank}"
    message = f"the loss{which} was {_word(bad.value)} {where}{on_rank}, {_circumstances(run, bad.step)}"
    return TrainingFailed(message, code=LOSS, hint=hint(run), rank=bad.rank)


def check_evaluation(run: Run, evaluation: Evaluation, step: int) -> None:
    """Raises TrainingFailed where the loss on the validation data is not finite."""
    if math.isfinite(evaluation.loss):
        return
    where = f"after step {step} (epoch {_epoch(run, step)})"
    message = f"the validation loss was {_word(evaluation.loss)} {where}, {_circumstances(run, step)}"
    raise TrainingFailed(message, code=LOSS, hint=hint(run))


def check_weights(run: Run, step: int) -> None:
    """Raises TrainingFailed where training left NaN or infinity: no loss tells of the last step's."""
    model, frozen = run.model, run.frozen.names
    bad = [
        name
        for name, tensor in model.named_parameters()
        if name not in frozen and not tensor.isfinite().all()
    ]
    # Infinity may be meant in a buffer, as in the mask of an attention.
    bad += [name for name, tensor in model.named_buffers() if name not in frozen and tensor.isnan().any()]
    if bad:
        raise TrainingFailed(
            f"step {step} left values that are not finite in {len(bad)} tensors, first {bad[0]}, though the "
            f"loss before it was finite, {_circumstances(run, step)}",
            code=LOSS,
            hint=hint(run),
        )


def check_scale(scale: float, step: int) -> None:
    """Raises TrainingFailed where fp16 gradients overflow at every step; now and then is normal."""
    if scale < SMALLEST_SCALE:
        raise TrainingFailed(
            f"up to step {step} the gradients overflowed fp16 at so many steps in a row that their scale "
            f"fell to {scale:.1e}: nothing is learned any more",
            code=GRADIENTS,
        )


def hint(run: Run) -> str:
    """What may help with these hyperparameters."""
    asked = run.spec.hyperparameters
    ways = [f"a learning_rate below {asked.learning_rate:g}"]
    if asked.gradient_clip_norm is None:
        ways.append("gradient_clip_norm")
    if asked.warmup_steps == 0:
        ways.append("warmup_steps")
    if run.precision.dtype is not None:
        ways.append("precision fp32")
    return f"{', '.join(ways)} may help; look also for pictures or labels that make no sense"


def _circumstances(run: Run, step: int) -> str:
    rate = learning_rate(run.spec.hyperparameters, max(0, step - 1), run.total_steps)
    return f"with learning rate {rate:g} and precision {run.precision.reason.partition(':')[0]}"


def _epoch(run: Run, step: int) -> int:
    """The epoch, counted from 1, of a step counted from 1."""
    return (max(1, step) - 1) // run.data.order.steps_per_epoch + 1


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"
