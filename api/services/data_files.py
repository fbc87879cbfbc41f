"""The files a job learns from, and the classes in them."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.models import File
from shared.db.scope import Scope
from shared.domain.datasets import n_left_for_training
from shared.domain.errors import Invalid, NotFound
from shared.domain.spec import JobSpec, TaskName

# What any pictures will do for, whatever is said of them.
_NEED_NO_LABELS: tuple[TaskName, ...] = ("reconstruction", "custom")
_NEEDED = {
    "classification": "class folders, or a Parquet file with one label a row",
    "multilabel": "a zip of pictures with labels.csv, or a Parquet file with a list of labels a row",
    "segmentation": "a zip with images/, masks/ and classes.txt",
}


@dataclass(frozen=True)
class DataFiles:
    """`class_names` in the order of the class numbers; None where a plan has no training file.

    Where labels are not looked at, there are no classes. A network's own training steps are told the classes
    of a data set for classification.
    """

    training: File | None
    validation: File | None
    class_names: list[str] | None

    def n_training(self, validation_fraction: float | None) -> int | None:
        """Samples that are left to train on; None without a training file."""
        if self.training is None:
            return None
        details = self.training.details
        is_shared_out_by_class = bool(self.class_names) and task_of(self.training) == "classification"
        counts = details["samples_per_class"].values() if is_shared_out_by_class else [details["n_samples"]]
        return n_left_for_training(list(counts), validation_fraction)


def find_data(scope: Scope, spec: JobSpec) -> DataFiles:
    """The files that the spec names, fit to be trained on, and kept until the transaction ends."""
    training = _data_file(scope, spec.training_file, spec.task, "training_file")
    validation = _data_file(scope, spec.validation_file, spec.task, "validation_file")
    if training is None:
        return DataFiles(None, validation, None)
    if validation is not None:
        _check_is_another(validation, training)
    if spec.validation_fraction is not None:
        _check_share(training, spec.validation_fraction)
    if spec.task == "custom" and validation is not None:
        _check_same_labels(training, validation)
    if spec.task in _NEED_NO_LABELS and not (spec.task == "custom" and task_of(training) == "classification"):
        return DataFiles(training, validation, [])
    class_names: list[str] = training.details["class_names"]
    if spec.task != "custom":
        _check_several_classes(training, spec.task, class_names)
    if validation is not None:
        _check_same_classes(validation, class_names)
    return DataFiles(training, validation, class_names)


def data_set(scope: Scope, file_id: str, param: str) -> File:
    """The data set `file_id`, for whatever task, kept until the transaction ends. Raises Invalid."""
    try:
        file = scope.get(File, file_id, share=True)
    except NotFound as error:
        raise Invalid(
            f"{error.message}; upload one with POST /v1/files and give its id, 'file-...'",
            param=param,
            code="unknown_file",
        ) from error
    if file.format == "weights":
        raise Invalid(f"{file_id} holds weights, and {param} needs a data set", param=param)
    return file


def task_of(file: File) -> TaskName:
    """What the file's labels are for; a file from before there were several tasks does not say."""
    task: TaskName = file.details.get("task", "classification")
    return task


def _data_file(scope: Scope, file_id: str | None, task: TaskName, param: str) -> File | None:
    if file_id is None:
        return None
    file = data_set(scope, file_id, param)
    if task not in (*_NEED_NO_LABELS, task_of(file)):
        raise Invalid(
            f"{file_id} is a data set for {task_of(file)} and the job's task is {task}, "
            f"which needs {_NEEDED[task]}",
            param=param,
            code="wrong_data_set",
        )
    return file


def _check_is_another(validation: File, training: File) -> None:
    if validation.sha256 == training.sha256:
        same = "is" if validation.id == training.id else f"has the same bytes as {training.id},"
        raise Invalid(
            f"{validation.id} {same} the training file, so that the figures would be of pictures that were "
            "trained on; give another file, or a validation_fraction",
            param="validation_file",
            code="same_file",
        )


def _check_same_labels(training: File, validation: File) -> None:
    if task_of(validation) != task_of(training):
        raise Invalid(
            f"{training.id} is a data set for {task_of(training)} and {validation.id} one for "
            f"{task_of(validation)}: the model's training steps would be told other targets in evaluation",
            param="validation_file",
            code="wrong_data_set",
        )


def _check_several_classes(file: File, task: TaskName, class_names: list[str]) -> None:
    if len(class_names) < 2:
        found = f"one class only, {class_names[0]!r}" if class_names else "no labels"
        raise Invalid(
            f"{file.id} has {found}; {task} needs at least two classes",
            param="training_file",
            code="one_class_only",
        )


def _check_same_classes(validation: File, class_names: list[str]) -> None:
    if task_of(validation) == "segmentation" and validation.details["class_names"] != class_names:
        raise Invalid(
            f"the classes.txt of {validation.id} is not the training file's, and masks hold the numbers of "
            f"its lines; training has {', '.join(class_names[:20])}",
            param="validation_file",
            code="other_classes",
        )
    unknown = [name for name in validation.details["class_names"] if name not in set(class_names)]
    if unknown:
        raise Invalid(
            f"{validation.id} has classes that the training file lacks: {', '.join(unknown[:10])}; "
            f"training has {', '.join(class_names[:20])}",
            param="validation_file",
            code="unknown_class",
        )


def _check_share(file: File, fraction: float) -> None:
    n_samples = int(file.details["n_samples"])
    n_validation = round(n_samples * fraction)
    if not 0 < n_validation < n_samples:
        raise Invalid(
            f"{fraction:g} of {n_samples} samples is {n_validation}; both training and validation need some",
            param="validation_fraction",
        )
