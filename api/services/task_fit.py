"""Whether the task that a job asks for suits the network that it starts from, and what else it asks for."""

from __future__ import annotations

from api.services.base_networks import BaseNetwork
from shared.domain.errors import Invalid
from shared.domain.spec import JobSpec, TaskName

# Tasks whose networks answer in the same form: one row of class scores.
_SAME_FORM: dict[TaskName, TaskName] = {"multilabel": "classification"}


# Tasks without class scores, and why they have none.
_WITHOUT_HEAD: dict[TaskName, str] = {
    "reconstruction": "reconstruction answers with a picture",
    "custom": "the model's own training steps compute their losses themselves",
}


def check_task(spec: JobSpec, base: BaseNetwork) -> None:
    """Raises Invalid for a network that answers otherwise, and for what the task would ignore."""
    if spec.task == "custom" and not base.training_steps:
        raise Invalid(
            f"{base.architecture.name} brings no training steps of its own, by which task custom trains; "
            f'give "task": "{base.made_for}", or a registered model that brings them',
            param="task",
            code="wrong_task",
        )
    if _form(base.made_for) != _form(spec.task):
        raise Invalid(
            f"{base.architecture.name} is made for {base.made_for}, and the job's task is {spec.task}; "
            f'give "task": "{base.made_for}", or a model that is made for {spec.task}',
            param="task",
            code="wrong_task",
        )
    if spec.task in _WITHOUT_HEAD:
        _check_nothing_is_ignored(spec)


def _form(task: TaskName) -> TaskName:
    return _SAME_FORM.get(task, task)


def _check_nothing_is_ignored(spec: JobSpec) -> None:
    if spec.head is not None:
        raise Invalid(
            f"{_WITHOUT_HEAD[spec.task]}, so there is no head to replace; leave head out",
            param="head",
            code="no_effect",
        )
    if spec.hyperparameters.label_smoothing:
        raise Invalid(
            f"{_WITHOUT_HEAD[spec.task]}, so there are no labels to smooth; leave label_smoothing out",
            param="hyperparameters.label_smoothing",
            code="no_effect",
        )
