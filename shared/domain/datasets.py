"""Zips of pictures: which kinds there are, and what is in one. Nothing is unpacked here.

    image_folder      zero/1.png  one/1.png ...                     a folder a class
    labelled_images   labels.csv  1.png  2.png ...                  any number of labels a picture
    masked_images     classes.txt  images/1.png  masks/1.png ...    a class for each pixel

or all of that inside one folder more. `labels.csv`, `classes.txt` or folders called images and masks tell.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

from shared.domain.archive import Caps, list_files
from shared.domain.data_set import DataSet
from shared.domain.image_folder import read_image_folder
from shared.domain.labelled_images import LABELS_FILE, read_labelled_images
from shared.domain.masked_images import is_masked_images, read_masked_images


def read_data_set(archive: zipfile.ZipFile, packed_bytes: int, caps: Caps) -> DataSet:
    """What the archive holds. `packed_bytes` is its own size.

    Raises Invalid and TooLarge, both naming the member that is wrong.
    """
    found = list_files(archive, packed_bytes, caps)
    for listing in (found, found.unwrapped()):
        if listing.at(LABELS_FILE):
            return read_labelled_images(archive, listing)
        if is_masked_images(listing):
            return read_masked_images(archive, listing)
    return read_image_folder(found)


def n_set_aside(n_samples: int, fraction: float) -> int:
    """How many of a class's samples validation gets: each class keeps one at least for training."""
    return min(round(fraction * n_samples), n_samples - 1)


def n_left_for_training(samples_per_class: Sequence[int], fraction: float | None) -> int:
    """Samples to train on where a share of each class, and one in all at least, is set aside."""
    n_samples = sum(samples_per_class)
    if fraction is None:
        return n_samples
    return n_samples - max(1, sum(n_set_aside(n, fraction) for n in samples_per_class))
