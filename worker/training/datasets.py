"""The training and validation data of a run: opened, looked through, split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from shared.domain.events import DataSource, TrainerSpec
from shared.domain.resolved import ResolvedPreprocessing
from shared.domain.spec import TaskName
from worker.training.data import open_samples
from worker.training.errors import TrainingFailed
from worker.training.labels import Indices, Labels
from worker.training.loading import Batches
from worker.training.pictures import EXPLAINED, NAMED_IN_ERRORS, Pictures, Skipped, open_pictures
from worker.training.progress import Progress
from worker.training.ranks import Ranks
from worker.training.sampling import TrainingOrder, split
from worker.training.transforms import Augmentation


@dataclass(frozen=True)
class ValidationData:
    batches: Batches
    indices: Indices


@dataclass(frozen=True)
class Data:
    """What a run learns from, and what it is measured on."""

    order: TrainingOrder
    batches: Batches
    validation: ValidationData | None
    skipped: list[str]
    is_cached: bool

    @property
    def n_validation(self) -> int:
        return len(self.validation.indices) if self.validation else 0


def open_data(spec: TrainerSpec, ranks: Ranks, progress: Progress) -> Data:
    """Opens and looks through all data of the run. Raises TrainingFailed for data that will not do."""
    augmentation = Augmentation(spec.preprocessing.augment, spec.seed)
    names, preprocessing = spec.class_names, spec.preprocessing
    pictures, skipped = open_readable(
        spec.train, spec.task, names, preprocessing, ranks, progress, may_cache=augmentation.keeps_size
    )
    batches = Batches(pictures, augmentation, ranks)
    indices, validation = pictures.readable, None
    if spec.validation_fraction is not None:
        indices, held_out = split(
            indices, pictures.samples.labels.strata, spec.validation_fraction, spec.seed
        )
        validation = ValidationData(Batches(pictures, augmentation, ranks), held_out)
    elif spec.validation is not None:
        others, more = open_readable(
            spec.validation, spec.task, names, preprocessing, ranks, progress, may_cache=True
        )
        skipped += more
        validation = ValidationData(Batches(others, augmentation, ranks), others.readable)
    _check_classes(pictures.samples.labels, indices, spec.class_names, progress)
    order = TrainingOrder(indices, spec.hyperparameters.batch_size, ranks.world_size, spec.seed)
    return Data(order, batches, validation, [s.name for s in skipped], pictures.cache is not None)


def open_readable(
    source: DataSource,
    task: TaskName,
    class_names: Sequence[str],
    preprocessing: ResolvedPreprocessing,
    ranks: Ranks,
    progress: Progress,
    *,
    may_cache: bool,
) -> tuple[Pictures, list[Skipped]]:
    """A data set looked through, and what of it cannot be read, which is noted. Some of it can be."""
    size = (preprocessing.height, preprocessing.width)
    allowed = preprocessing.max_unreadable_fraction
    with _naming(source):
        samples = open_samples(source, task, class_names)
        pictures, skipped = open_pictures(samples, size, allowed, ranks, may_cache=may_cache)
        if skipped:
            _note_skipped(skipped, len(samples), progress)
        if len(pictures.readable) == 0:
            raise TrainingFailed("no picture of the data set can be read", code="bad_data")
    return pictures, skipped


@contextmanager
def _naming(source: DataSource) -> Iterator[None]:
    """An error in the data says of which file it is: a job may have two."""
    try:
        yield
    except TrainingFailed as error:
        if source.name is None:
            raise
        message = f"in {source.name}: {error.message}"
        raise TrainingFailed(message, code=error.code, hint=error.hint) from error


def _note_skipped(skipped: Sequence[Skipped], n: int, progress: Progress) -> None:
    listed = "; ".join(f"{s.name} ({s.reason})" for s in skipped[:NAMED_IN_ERRORS])
    progress.note(
        "skipped_images",
        f"skipped {len(skipped)} of {n} pictures that cannot be read: {listed}",
        {
            "count": len(skipped),
            "images": [{"name": s.name, "reason": s.reason} for s in skipped[:EXPLAINED]],
        },
        level="warn",
    )


def _check_classes(labels: Labels, indices: Indices, class_names: Sequence[str], progress: Progress) -> None:
    counts = labels.counts(indices)
    if counts is None:
        return
    labels.check(counts, class_names)
    missing = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if missing:
        progress.note(
            "class_without_samples",
            f"no training picture for: {', '.join(missing[:NAMED_IN_ERRORS])}",
            {"classes": missing[:EXPLAINED]},
            level="warn",
        )
