"""Zips of pictures with a mask each, judged before anything is unpacked."""

from __future__ import annotations

import io
import zipfile

import pytest

from shared.domain.archive import Caps, PackedFile, open_archive
from shared.domain.data_set import DataSet
from shared.domain.datasets import read_data_set
from shared.domain.errors import Invalid, TooLarge

CAPS = Caps(files=100, unpacked_bytes=10_000, ratio=50)
PAIR = ["images/1.jpg", "masks/1.png"]


def read(classes: str | None, *names: str, below: str = "") -> DataSet:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        if classes is not None:
            archive.writestr(f"{below}classes.txt", classes)
        for name in names:
            archive.writestr(f"{below}{name}", b"x")
    with open_archive(packed, CAPS) as opened:
        return read_data_set(opened, len(packed.getvalue()), CAPS)


@pytest.mark.parametrize("below", ["", "streets/"])
def test_a_class_is_a_line_and_a_picture_goes_with_the_mask_of_its_name(below: str) -> None:
    found = read("road\ncar\n", *PAIR, "images/2.PNG", "masks/2.PNG", "masks/.DS_Store", below=below)

    assert (found.format, found.task) == ("masked_images", "segmentation")
    assert found.details == {"class_names": ["road", "car"], "n_samples": 2, "n_ignored": 1}
    assert PackedFile(f"{below}masks/2.PNG", "masks/2.PNG") in found.files


@pytest.mark.parametrize(
    ("classes", "names", "told"),
    [
        (None, PAIR, "there is no classes.txt"),
        ("a\nb", [*PAIR, "images/2.jpg"], "masks/ has no mask for 'images/2.jpg'"),
        ("a\nb", [*PAIR, "masks/3.png"], "images/ has no picture for 'masks/3.png'"),
        ("a\nb", [*PAIR, "images/1.png"], "images/ has 2 files called '1'"),
        ("a\nb", ["images/1.jpg", "masks/1.jpg"], "'masks/1.jpg' is no PNG"),
        ("a\nb", [*PAIR, "images/notes.txt"], "'images/notes.txt' is no picture"),
        ("a\nb", [*PAIR, "notes.txt"], "'notes.txt' lies neither in images/ nor in masks/"),
        ("a\nb", [*PAIR, "images/night/2.jpg"], "'images/night/2.jpg' lies neither"),
        ("a\nb", [], "holds no pictures"),
        ("a\n\nb\n", PAIR, "line 2 is '', of 0 characters"),
        ("a\nb\na\n", PAIR, "the class 'a' 2 times"),
        ("", PAIR, "has 0 lines"),
        ("\n".join(map(str, range(256))), PAIR, "has 256 lines; 1 to 255"),
    ],
)
def test_what_is_wrong_is_named(classes: str | None, names: list[str], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        read(classes, *names)


def test_the_caps_hold_for_it_too() -> None:
    with pytest.raises(Invalid, match="leads out"):
        read("a\nb", *PAIR, "masks/../../2.png")
    with pytest.raises(TooLarge, match="times its size"):
        read("a\nb" + " " * 8_000, *PAIR)
