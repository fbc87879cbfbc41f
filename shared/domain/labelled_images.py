"""A zip of pictures that each have any number of labels.

    scenes.zip:  labels.csv  1.png  2.png  night/3.png ...

labels.csv is UTF-8 with the header `file,labels` and a row for every picture; labels are separated by `;`,
and a picture may have none:

    file,labels
    1.png,car;street
    night/3.png,
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from shared.domain.archive import Listing, PackedFile, bad_archive, read_text
from shared.domain.data_set import MAX_LABEL, PICTURE_SUFFIXES, DataSet, is_picture
from shared.domain.errors import Invalid

LABELS_FILE = "labels.csv"
# The answers to every validation picture are held at once for the average precision.
MAX_LABELS = 10_000
_HEADER = ["file", "labels"]
_LAYOUT = f"{LABELS_FILE} has the header {','.join(_HEADER)!r} and a row for each picture: 1.png,car;street"


def read_labelled_images(archive: zipfile.ZipFile, listing: Listing) -> DataSet:
    """The pictures and their labels. Raises Invalid, naming the member or the row that is wrong."""
    member = listing.at(LABELS_FILE)
    assert member is not None
    paths = {name: "/".join(parts) for name, parts in listing.parts.items()}
    pictures = {path for name, path in paths.items() if name != member}
    _check_pictures(pictures)
    labels = parse_labels(read_text(archive, member), pictures)
    files = tuple(PackedFile(name, path) for name, path in sorted(paths.items()))
    details = {**label_details(labels.values()), "n_ignored": listing.n_ignored}
    return DataSet("labelled_images", "multilabel", files, details)


def parse_labels(text: str, pictures: AbstractSet[str]) -> dict[str, list[str]]:
    """The labels of each of `pictures` by its path, in the order of the rows.

    Raises Invalid, naming the row that is wrong, or the pictures that have none.
    """
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    labels: dict[str, list[str]] = {}
    same: dict[str, str] = {}  # a label that many pictures share is held once
    try:
        if (header := next(rows, [])) != _HEADER:
            raise bad_archive(f"{LABELS_FILE} begins with {','.join(header)[:80]!r}; {_LAYOUT}")
        for row in rows:
            where = f"{LABELS_FILE} line {rows.line_num}"
            path, of_picture = _parse_row(row, where)
            if path not in pictures:
                raise bad_archive(f"{where}: there is no picture {path!r}")
            if path in labels:
                raise bad_archive(f"{where}: {path!r} has a row already")
            labels[path] = [same.setdefault(label, label) for label in of_picture]
    except csv.Error as error:
        raise bad_archive(f"{LABELS_FILE} is no readable CSV ({error}); {_LAYOUT}") from error
    _check_none_is_left(pictures - labels.keys())
    return labels


def label_details(labels: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Class names in order, the pictures of each, and how many there are, with and without labels.

    Raises Invalid for more classes than can be told apart.
    """
    counts: Counter[str] = Counter()
    n_samples = n_without = 0
    for of_picture in labels:
        counts.update(of_picture)
        n_samples += 1
        n_without += not of_picture
        if len(counts) > MAX_LABELS:
            raise Invalid(
                f"there are more than {MAX_LABELS:,} different labels; multilabel takes at most so many",
                param="file",
                code="too_many_labels",
            )
    per_class = dict(sorted(counts.items()))
    return {
        "class_names": list(per_class),
        "samples_per_class": per_class,
        "n_samples": n_samples,
        "n_without_labels": n_without,
    }


def wrong_label(labels: Sequence[str]) -> str | None:
    """What is wrong with the labels of one picture, where one is empty, too long, or there twice."""
    for label in labels:
        if not 0 < len(label) <= MAX_LABEL or "\0" in label:
            return (
                f"the label {label[:40]!r} of {len(label)} characters; "
                f"1 to {MAX_LABEL} are allowed, without the character NUL"
            )
    if len(set(labels)) == len(labels):
        return None
    return f"the label {Counter(labels).most_common(1)[0][0]!r} twice"


def _parse_row(row: Sequence[str], where: str) -> tuple[str, list[str]]:
    if len(row) != len(_HEADER):
        raise bad_archive(f"{where} has {len(row)} fields; {_LAYOUT}")
    path, field = row
    labels = [label.strip() for label in field.split(";")] if field.strip() else []
    if wrong := wrong_label(labels):
        raise bad_archive(f"{where} has {wrong}")
    return path, labels


def _check_pictures(pictures: AbstractSet[str]) -> None:
    for path in sorted(pictures):
        if not is_picture(path):
            raise bad_archive(
                f"{path!r} is no picture; beside {LABELS_FILE} are only {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        parts = path.split("/")
        if any("/".join(parts[:depth]) in pictures for depth in range(1, len(parts))):
            raise bad_archive(f"{path!r} lies below another picture, which is no folder")


def _check_none_is_left(unlabelled: AbstractSet[str]) -> None:
    if unlabelled:
        first = sorted(unlabelled)[:5]
        more = f" and {len(unlabelled) - 5} more" if len(unlabelled) > 5 else ""
        raise bad_archive(
            f"{LABELS_FILE} has no row for {', '.join(map(repr, first))}{more}; "
            f"a picture without labels has a row like '{first[0]},'"
        )
