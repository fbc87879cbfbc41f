"""The samples of a data set: pictures, and what a task is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shared.domain.events import DataSource
from shared.domain.labelled_images import LABELS_FILE, parse_labels
from shared.domain.masked_images import IMAGES, MASKS, stem
from shared.domain.spec import TaskName
from worker.training.errors import TrainingFailed
from worker.training.images import ReadFailed, decode
from worker.training.labels import ClassNumbers, Labels, LabelSets, NoLabels
from worker.training.masks import Masks
from worker.training.stored import (
    FolderPictures,
    StoredPictures,
    class_folders,
    files_below,
    read_parquet,
)


@dataclass(frozen=True)
class Samples:
    """Stored pictures and their labels, in an order that is the same on every rank and node."""

    pictures: StoredPictures
    labels: Labels
    masks: Masks | None = None

    @property
    def n_layers(self) -> int:
        """Of a decoded sample: three colours, and the mask where there is one."""
        return 3 if self.masks is None else 4

    def __len__(self) -> int:
        return len(self.pictures)

    def name(self, index: int) -> str:
        """What a person would call the sample."""
        return self.pictures.name(index)

    def decode(self, index: int) -> Tensor:
        """In its own size, the mask behind the picture: uint8 [layers, height, width].

        Raises Unreadable, and ReadFailed where the node's disk is at fault.
        """
        try:
            return self._decode(index)
        except OSError as error:
            raise ReadFailed(f"sample {index}, {self.name(index)}: {error.strerror}") from error

    def _decode(self, index: int) -> Tensor:
        picture = decode(self.pictures.read(index))
        if self.masks is None:
            return picture
        _, height, width = picture.shape
        return torch.cat([picture, self.masks.decode(index, (height, width))])


def open_samples(source: DataSource, task: TaskName, class_names: Sequence[str]) -> Samples:
    """The samples of `source`. Raises TrainingFailed for a class that is not among `class_names`."""
    samples = _open(source, task, class_names)
    if len(samples) == 0:
        raise TrainingFailed("the data set has no pictures", code="bad_data")
    return samples


def _open(source: DataSource, task: TaskName, class_names: Sequence[str]) -> Samples:
    path = Path(source.path)
    match task, source.format:
        case "custom", _ if not class_names:
            return _pictures_alone(source)
        case "classification" | "custom", "image_folder":
            return _class_folders(path, class_names)
        case "classification" | "custom", "parquet":
            pictures, labels = read_parquet(path, *_columns(source))
            return Samples(pictures, _class_numbers([str(label) for label in labels], class_names))
        case "multilabel", "labelled_images":
            return _labelled_images(path, class_names)
        case "multilabel", "parquet":
            pictures, labels = read_parquet(path, *_columns(source))
            return Samples(pictures, _label_sets(labels, class_names))
        case "segmentation", "masked_images":
            return _masked_images(path, class_names)
        case "reconstruction", _:
            return _pictures_alone(source)
    raise TrainingFailed(f"{source.format} is no data set for {task}", code="bad_data")


def _pictures_alone(source: DataSource) -> Samples:
    """The pictures of any data set, whatever is said of them."""
    if source.format == "parquet":
        pictures: StoredPictures = read_parquet(Path(source.path), _columns(source)[0], None)[0]
    else:
        paths = files_below(Path(source.path), IMAGES if source.format == "masked_images" else "")
        told = {LABELS_FILE} if source.format == "labelled_images" else set()
        pictures = FolderPictures(Path(source.path), [path for path in paths if path not in told])
    return Samples(pictures, NoLabels(len(pictures)))


def _class_folders(root: Path, class_names: Sequence[str]) -> Samples:
    folders = class_folders(root)
    found = [(path, folder) for folder in folders for path in files_below(root, folder)]
    _numbers_of(folders, class_names)
    labels = _class_numbers([folder for _, folder in found], class_names)
    return Samples(FolderPictures(root, [path for path, _ in found]), labels)


def _labelled_images(root: Path, class_names: Sequence[str]) -> Samples:
    paths = [path for path in files_below(root) if path != LABELS_FILE]
    labels = parse_labels((root / LABELS_FILE).read_text(encoding="utf-8-sig"), set(paths))
    return Samples(FolderPictures(root, paths), _label_sets([labels[path] for path in paths], class_names))


def _masked_images(root: Path, class_names: Sequence[str]) -> Samples:
    paths = files_below(root, IMAGES)
    mask_of = {stem(path): path for path in files_below(root, MASKS)}
    masks = FolderPictures(root, [mask_of[stem(path)] for path in paths])
    return Samples(FolderPictures(root, paths), NoLabels(len(paths)), Masks(masks, len(class_names)))


def _class_numbers(labels: Sequence[str], class_names: Sequence[str]) -> ClassNumbers:
    number = _numbers_of(labels, class_names)
    return ClassNumbers(np.array([number[label] for label in labels], dtype=np.int64), len(class_names))


def _label_sets(labels: Sequence[Sequence[str]], class_names: Sequence[str]) -> LabelSets:
    number = _numbers_of({label for of_picture in labels for label in of_picture}, class_names)
    sets = [np.array([number[label] for label in of_picture], dtype=np.int64) for of_picture in labels]
    return LabelSets(sets, len(class_names))


def _numbers_of(labels: Iterable[str], class_names: Sequence[str]) -> dict[str, int]:
    """The number of each class. Raises TrainingFailed for labels that are none."""
    number = {name: i for i, name in enumerate(class_names)}
    unknown = sorted(set(labels) - number.keys())
    if unknown:
        known = ", ".join(class_names[:20])
        raise TrainingFailed(
            f"the data has other classes than the job: {', '.join(unknown[:20])}; the job's are {known}",
            code="bad_data",
        )
    return number


def _columns(source: DataSource) -> tuple[str, str]:
    assert source.image_column is not None
    assert source.label_column is not None
    return source.image_column, source.label_column
