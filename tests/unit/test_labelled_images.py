"""Zips of pictures with a labels.csv, judged before anything is unpacked."""

from __future__ import annotations

import io
import zipfile

import pytest

from shared.domain.archive import Caps, PackedFile, open_archive
from shared.domain.data_set import DataSet
from shared.domain.datasets import read_data_set
from shared.domain.errors import Invalid, TooLarge

CAPS = Caps(files=100, unpacked_bytes=10_000, ratio=50)


def read(labels: str | bytes, *names: str, below: str = "") -> DataSet:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{below}labels.csv", labels)
        for name in names:
            archive.writestr(f"{below}{name}", b"x")
    with open_archive(packed, CAPS) as opened:
        return read_data_set(opened, len(packed.getvalue()), CAPS)


def test_pictures_have_any_number_of_labels_and_classes_are_sorted() -> None:
    found = read("file,labels\n1.png,dog; cat\nnight/2.png,\n3.png,dog\n", "1.png", "night/2.png", "3.png")

    assert (found.format, found.task) == ("labelled_images", "multilabel")
    assert found.details == {
        "class_names": ["cat", "dog"],
        "samples_per_class": {"cat": 1, "dog": 2},
        "n_samples": 3,
        "n_without_labels": 1,
        "n_ignored": 0,
    }
    assert PackedFile("labels.csv", "labels.csv") in found.files


def test_one_folder_around_everything_is_taken_off_and_spreadsheets_mark_their_files() -> None:
    found = read("\ufefffile,labels\r\n1.png,a\r\n2.png,b\r\n", "1.png", "2.png", below="scenes/")
    assert {file.path for file in found.files} == {"labels.csv", "1.png", "2.png"}


@pytest.mark.parametrize(
    ("labels", "names", "told"),
    [
        ("name,labels\n1.png,a\n", ["1.png"], "begins with 'name,labels'"),
        ("", ["1.png"], "begins with ''"),
        ("file,labels\n1.png,a,b\n", ["1.png"], "line 2 has 3 fields"),
        ("file,labels\n1.png,a\n\n2.png,b\n", ["1.png", "2.png"], "line 3 has 0 fields"),
        ("file,labels\n1.png,a\n1.png,b\n", ["1.png"], "line 3: '1.png' has a row already"),
        ("file,labels\n1.png,a\n2.png,b\n", ["1.png"], "line 3: there is no picture '2.png'"),
        ("file,labels\n1.png,a\n", ["1.png", "2.png"], "no row for '2.png'; .* a row like '2.png,'"),
        ("file,labels\n1.png,a;a\n", ["1.png"], "line 2 has the label 'a' twice"),
        ("file,labels\n1.png,a;;b\n", ["1.png"], "the label '' of 0 characters"),
        ('file,labels\n1.png,"a\n', ["1.png"], "no readable CSV"),
        (b"file,labels\n1.png,\xff\n", ["1.png"], "'labels.csv' is no UTF-8 text"),
        ("file,labels\n1.txt,a\n", ["1.txt"], "'1.txt' is no picture"),
        ("file,labels\n1.png,a\n1.png/2.png,a\n", ["1.png", "1.png/2.png"], "below another picture"),
    ],
)
def test_what_is_wrong_is_named(labels: str | bytes, names: list[str], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        read(labels, *names)


def test_the_caps_hold_for_it_too() -> None:
    with pytest.raises(Invalid, match="leads out"):
        read("file,labels\n../1.png,a\n", "../1.png")
    with pytest.raises(TooLarge, match="times its size"):
        read("file,labels\n" + "1.png,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" * 200, "1.png")
