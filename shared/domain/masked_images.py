"""A zip of pictures with a mask each, which says the class of every pixel.

    streets.zip:  classes.txt  images/1.jpg  images/2.png ...  masks/1.png  masks/2.png ...

A mask has the name of its picture and is a PNG of the same size with one channel, grey or with a palette:
its values are the numbers of classes, or 255 for pixels that do not count. classes.txt is UTF-8 with a name
on each line, of class 0 on the first.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable

from shared.domain.archive import Listing, PackedFile, bad_archive, read_text
from shared.domain.data_set import MAX_LABEL, PICTURE_SUFFIXES, DataSet, is_picture

CLASSES_FILE = "classes.txt"
IMAGES, MASKS = "images", "masks"
# A mask's values are bytes, and 255 stands for pixels that do not count.
MAX_CLASSES = 255
_LAYOUT = f"a zip for segmentation holds {IMAGES}/1.jpg, {MASKS}/1.png and {CLASSES_FILE}"


def is_masked_images(listing: Listing) -> bool:
    """Whether the names say so: a classes.txt, or nothing but folders called images and masks."""
    return listing.at(CLASSES_FILE) is not None or {parts[0] for parts in listing.parts.values()} == {
        IMAGES,
        MASKS,
    }


def read_masked_images(archive: zipfile.ZipFile, listing: Listing) -> DataSet:
    """The pictures, masks and classes. Raises Invalid, naming the member that is wrong."""
    member = listing.at(CLASSES_FILE)
    if member is None:
        raise bad_archive(f"there is no {CLASSES_FILE}; {_LAYOUT}")
    paths = {name: "/".join(parts) for name, parts in listing.parts.items()}
    pictures, masks = _by_folder(listing, ignored=member)
    _check_partners(pictures, masks)
    details = {
        "class_names": parse_classes(read_text(archive, member)),
        "n_samples": len(pictures),
        "n_ignored": listing.n_ignored,
    }
    files = tuple(PackedFile(name, path) for name, path in sorted(paths.items()))
    return DataSet("masked_images", "segmentation", files, details)


def parse_classes(text: str) -> list[str]:
    """The names in the order of their numbers. Raises Invalid, naming the line that is wrong."""
    names = [line.strip() for line in text.splitlines()]
    if not 0 < len(names) <= MAX_CLASSES:
        raise bad_archive(
            f"{CLASSES_FILE} has {len(names)} lines; 1 to {MAX_CLASSES} are allowed, a class each"
        )
    for number, name in enumerate(names, start=1):
        if not 0 < len(name) <= MAX_LABEL or "\0" in name:
            raise bad_archive(
                f"{CLASSES_FILE} line {number} is {name[:40]!r}, of {len(name)} characters; "
                f"1 to {MAX_LABEL} are allowed, without the character NUL"
            )
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise bad_archive(f"{CLASSES_FILE} has the class {name!r} {count} times")
    return names


def stem(path: str) -> str:
    """What a picture and its mask have in common."""
    return path.rpartition("/")[2].rpartition(".")[0]


def _by_folder(listing: Listing, ignored: str) -> tuple[list[str], list[str]]:
    """(pictures, masks): their names within their folders."""
    found: dict[str, list[str]] = {IMAGES: [], MASKS: []}
    for name, parts in listing.parts.items():
        if name == ignored:
            continue
        if len(parts) != 2 or parts[0] not in found:
            raise bad_archive(f"{name!r} lies neither in {IMAGES}/ nor in {MASKS}/; {_LAYOUT}")
        if parts[0] == MASKS and not parts[1].lower().endswith(".png"):
            raise bad_archive(f"{name!r} is no PNG; a mask is one, as other formats change its values")
        if not is_picture(parts[1]):
            raise bad_archive(
                f"{name!r} is no picture; {IMAGES}/ holds only {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        found[parts[0]].append(parts[1])
    return found[IMAGES], found[MASKS]


def _check_partners(pictures: list[str], masks: list[str]) -> None:
    for folder, names in ((IMAGES, pictures), (MASKS, masks)):
        for name, count in Counter(map(stem, names)).most_common(1):
            if count > 1:
                raise bad_archive(
                    f"{folder}/ has {count} files called {name!r}; a mask and its picture are a pair"
                )
    of_pictures, of_masks = set(map(stem, pictures)), set(map(stem, masks))
    if alone := of_pictures - of_masks:
        raise bad_archive(f"{MASKS}/ has no mask for {_listed(IMAGES, pictures, alone)}")
    if alone := of_masks - of_pictures:
        raise bad_archive(f"{IMAGES}/ has no picture for {_listed(MASKS, masks, alone)}")
    if not pictures:
        raise bad_archive(f"the archive holds no pictures; {_LAYOUT}")


def _listed(folder: str, names: Iterable[str], stems: set[str]) -> str:
    found = sorted(f"{folder}/{name}" for name in names if stem(name) in stems)
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(map(repr, found[:5])) + more
