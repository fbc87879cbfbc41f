"""The files a job learns from, and the classes in them."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.models import File
from shared.db.scope import Scope
from shared.domain.datasets import n_left_for_training
from shared.domain.errors import Invalid, NotFound
from shared.domain.spec import JobSpec


@dataclass(frozen=True)
class DataFiles:
    """`class_names` in the order of the class numbers; None where a plan has no training file."""

    training: File | None
    validation: File | None
    class_names: list[str] | None

    def n_training(self, validation_fraction: float | None) -> int | None:
        """Samples that are left to train on; None without a training file."""
        if self.training is None:
            return None
        counts: dict[str, int] = self.training.details["samples_per_class"]
        return n_left_for_training(list(counts.values()), validation_fraction)


def find_data(scope: Scope, spec: JobSpec) -> DataFiles:
    """The files that the spec names, fit to be trained on, and kept until the transaction ends."""
    training = _data_file(scope, spec.training_file, "training_file") if spec.training_file else None
    validation = _data_file(scope, spec.validation_file, "validation_file") if spec.validation_file else None
    if training is None:
        return DataFiles(None, validation, None)
    class_names: list[str] = training.details["class_names"]
    _check_several_classes(training, class_names)
    if validation is not None:
        _check_same_classes(validation, class_names)
    if spec.validation_fraction is not None:
        _check_share(training, spec.validation_fraction)
    return DataFiles(training, validation, class_names)


def _data_file(scope: Scope, file_id: str, param: str) -> File:
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


def _check_several_classes(file: File, class_names: list[str]) -> None:
    if len(class_names) < 2:
        raise Invalid(
            f"{file.id} has one class only, {class_names[0]!r}; classification needs at least two",
            param="training_file",
            code="one_class_only",
        )


def _check_same_classes(validation: File, class_names: list[str]) -> None:
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
