"""What may be changed of a paused job, checked as at its submission, and how a change is written down."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from shared.domain.effects import check_warmup
from shared.domain.errors import Invalid
from shared.domain.freeze_checks import check_epochs
from shared.domain.resolved import ResolvedJob
from shared.domain.shape import Shape
from shared.domain.spec import DurationS, LearningRate, NEpochs, Priority, Strict

N_EPOCHS = "hyperparameters.n_epochs"
LEARNING_RATE = "hyperparameters.learning_rate"
PRIORITY = "priority"
MAX_DURATION = "max_duration_s"


class SpecChange(Shape):
    """One field of a job, changed while it was paused."""

    field: str = Field(description="its path in the job, such as hyperparameters.n_epochs")
    old: int | float | None
    new: int | float | None
    actor: str
    time: float


class HeldFrom(Shape):
    """Since when a run has trained by a changed value."""

    field: str
    old: int | float | None
    new: int | float | None
    step: int = Field(description="optimizer steps that were done by then, over the whole run")


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("null changes nothing; leave the field out")
    return value


class ChangedHyperparameters(Strict):
    """Those that a job may go on with otherwise: its data, batches and network stay what they were."""

    n_epochs: Annotated[NEpochs | None, AfterValidator(_given)] = None
    learning_rate: Annotated[LearningRate | None, AfterValidator(_given)] = None


class Changes(Strict):
    """The body of POST .../resume for jobs of every kind. What is left out stays as it is."""

    priority: Annotated[Priority | None, AfterValidator(_given)] = None
    max_duration_s: DurationS | None = Field(None, description="null: no limit from now on")


class TrainingChanges(Changes):
    """The body of POST /v1/fine_tuning/jobs/ID/resume."""

    hyperparameters: ChangedHyperparameters = Field(default_factory=ChangedHyperparameters)


@dataclass(frozen=True)
class Reached:
    """How far a job is: `epoch` epochs are done, and `step` steps, over the whole run.

    `steps_per_epoch` is None where no trainer has told it.
    """

    epoch: int = 0
    step: int = 0
    steps_per_epoch: int | None = None

    @property
    def epochs_begun(self) -> int:
        done_in_epochs = self.epoch * (self.steps_per_epoch or 0)
        return self.epoch + (self.step > done_in_epochs)


def asked_of(changes: Changes) -> dict[str, Any]:
    """What is asked for, by the field's path in a job."""
    asked = {name: getattr(changes, name) for name in changes.model_fields_set - {"hyperparameters"}}
    if isinstance(changes, TrainingChanges):
        inner = changes.hyperparameters
        asked |= {f"hyperparameters.{name}": getattr(inner, name) for name in inner.model_fields_set}
    return asked


def differing(asked: Mapping[str, Any], job: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(field, old, new) of what is not so already; `job` is its fields, with fields in them."""
    for field, new in sorted(asked.items()):
        old: Any = job
        for step in field.split("."):
            old = old[step]
        if old != new:
            yield field, old, new


def with_changes(job: Mapping[str, Any], changes: Iterable[SpecChange]) -> dict[str, Any]:
    """A copy of the job's fields in which the changes are made."""
    changed = deepcopy(dict(job))
    for change in changes:
        *above, last = change.field.split(".")
        holder = changed
        for step in above:
            holder = holder[step]
        holder[last] = change.new
    return changed


def check_time(changes: Iterable[SpecChange], spent_s: float) -> None:
    """Raises Invalid for a new time limit that a job which has run for `spent_s` is past already."""
    limit = next((change.new for change in changes if change.field == MAX_DURATION), None)
    if limit is not None and limit <= spent_s:
        raise Invalid(
            f"the job has run for {spent_s:.0f} s in its tries so far; give more, or null for no limit",
            param=MAX_DURATION,
            code="time_spent",
        )


def check_training(
    job: ResolvedJob, changed: Collection[str], reached: Reached, *, n_training: int, world_size: int
) -> None:
    """Raises Invalid where the job, whose fields `changed` are new, could not go on from where it is.

    Its freeze plan stays as it is: phases count epochs from the job's start, and none may be left out.
    """
    n_epochs = job.hyperparameters.n_epochs
    if N_EPOCHS in changed:
        _check_not_done(n_epochs, reached)
        _check_schedule(job, n_epochs)
        check_warmup(job.hyperparameters, n_training, world_size)


def in_words(changes: Iterable[SpecChange]) -> str:
    """For the job's history."""
    return "; ".join(f"{change.field} {_word(change.old)} -> {_word(change.new)}" for change in changes)


def _word(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _check_not_done(n_epochs: int, reached: Reached) -> None:
    if n_epochs < reached.epochs_begun:
        raise Invalid(
            f"the job has begun its epoch {reached.epochs_begun}, at step {reached.step}; give "
            f"{reached.epochs_begun} at least",
            param=N_EPOCHS,
            code="epochs_done",
        )


def _check_schedule(job: ResolvedJob, n_epochs: int) -> None:
    try:
        check_epochs(job.freeze, n_epochs)
    except Invalid as error:
        raise Invalid(f"{error.param}: {error.message}", param=N_EPOCHS, code=error.code) from error
