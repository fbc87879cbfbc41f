"""A zip of class folders: a class is a folder's name.

digits.zip:  zero/1.png  zero/2.png  one/1.png ...      or all of that inside one folder more
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from shared.domain.archive import Listing, PackedFile, bad_archive, check_no_doubles
from shared.domain.data_set import PICTURE_SUFFIXES, DataSet, is_picture

_LAYOUT = "a zip holds one folder a class with pictures in it: cat/1.png, dog/1.png"


def read_image_folder(listing: Listing) -> DataSet:
    """The pictures below their classes. Raises Invalid, naming the member that is wrong."""
    files = tuple(sorted(_files(listing), key=lambda file: file.member))
    check_no_doubles(file.path for file in files)
    counts = dict(sorted(Counter(file.path.partition("/")[0] for file in files).items()))
    details = {
        "class_names": list(counts),
        "samples_per_class": counts,
        "n_samples": len(files),
        "n_ignored": listing.n_ignored,
    }
    return DataSet("image_folder", "classification", files, details)


def _files(listing: Listing) -> Iterator[PackedFile]:
    is_wrapped = all(len(parts) > 2 for parts in listing.parts.values())
    for name, parts in (listing.unwrapped() if is_wrapped else listing).parts.items():
        if len(parts) < 2:
            raise bad_archive(f"{name!r} lies in no class folder; {_LAYOUT}")
        if len(parts) > 2:
            raise bad_archive(
                f"{name!r} lies too deep; {_LAYOUT}, or all of them inside a single folder; "
                "training and validation are two archives"
            )
        if not is_picture(parts[1]):
            raise bad_archive(
                f"{name!r} is no picture; a class folder holds only {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        yield PackedFile(name, "/".join(parts))
