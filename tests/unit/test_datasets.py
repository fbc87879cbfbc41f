"""Zips of pictures, judged by their index: caps, bombs, and class folders."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from shared.domain.archive import Caps, PackedFile, open_archive
from shared.domain.data_set import DataSet
from shared.domain.datasets import n_left_for_training, read_data_set
from shared.domain.errors import Invalid, TooLarge
from shared.domain.weights_file import read_shapes

CAPS = Caps(files=100, unpacked_bytes=10_000, ratio=50)


def _zip(*names: str, content: bytes = b"x") -> io.BytesIO:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return packed


def _read(packed: io.BytesIO, caps: Caps = CAPS) -> DataSet:
    with open_archive(packed, caps) as archive:
        return read_data_set(archive, len(packed.getvalue()), caps)


def test_classes_are_ordered_by_name_and_samples_by_theirs() -> None:
    folder = _read(_zip("b/2.png", "a/1.jpg", "b/1.png"))

    assert folder.details["samples_per_class"] == {"a": 1, "b": 2}
    assert folder.files[1] == PackedFile("b/1.png", "b/1.png")


def test_one_folder_around_all_classes_is_taken_off() -> None:
    folder = _read(_zip("pets/cat/1.png", "pets/dog/1.png"))
    assert folder.files[0] == PackedFile("pets/cat/1.png", "cat/1.png")


def test_a_bomb_is_known_by_its_stated_sizes() -> None:
    with pytest.raises(TooLarge, match="times its size"):
        _read(_zip("a/1.png", content=bytes(9_000)))


def test_a_member_that_hides_among_others_is_held_to_the_ratio_alone() -> None:
    packed = _zip("a/1.png", content=bytes(9_000))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("b/1.png", bytes(range(256)) * 3)
    with pytest.raises(TooLarge, match=r"'a/1.png' unpacks to"):
        _read(packed)


def test_an_index_longer_than_its_members_need_is_not_read() -> None:
    packed = bytearray(_zip("a/1.png", "b/1.png").getvalue())
    end = packed.rindex(b"PK\x05\x06")
    struct.pack_into("<L", packed, end + 12, 10_000_000)
    with pytest.raises(TooLarge, match="index"):
        _read(io.BytesIO(bytes(packed)))


def test_a_wide_index_is_as_long_as_any_of_its_records_says() -> None:
    def record(index_bytes: int) -> bytes:
        return struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, index_bytes, 0)

    packed = _zip("a/1.png", "b/1.png").getvalue()
    end = packed.rindex(b"PK\x05\x06")
    for stated, adjacent in ((100, 10_000_000), (10_000_000, 100)):
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
        wide = packed[:end] + record(stated) + record(adjacent) + locator + packed[end:]
        with pytest.raises(TooLarge, match="index has 10,000,000 bytes"):
            _read(io.BytesIO(wide))


@pytest.mark.parametrize("name", ["..\\x.png", "C:/a/x.png", "a/\x1b[31m.png"])
def test_names_that_other_systems_would_follow_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        _read(_zip("a/1.png", name))


def test_a_name_that_is_there_twice_is_refused_rather_than_dropped() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        packed = _zip("a/1.png", "b/1.png", "a/1.png")
    with pytest.raises(Invalid, match=r"'a/1.png' is in the archive 2 times"):
        _read(packed)


def test_names_that_no_folder_can_hold_are_refused() -> None:
    with pytest.raises(Invalid, match="longer than 255 bytes"):
        _read(_zip("a/1.png", f"{chr(233) * 128}/1.png"))
    nameless = _zip("a/1.png", "x")
    index = nameless.getvalue().rindex(b"PK\x01\x02")
    packed = bytearray(nameless.getvalue())
    struct.pack_into("<HH", packed, index + 28, 0, 1)  # its one letter is now an extra field
    with pytest.raises(Invalid, match="has 0 characters"):
        _read(io.BytesIO(bytes(packed)))


@pytest.mark.parametrize(
    ("counts", "fraction", "left"), [([5, 5], None, 10), ([5, 5], 0.2, 8), ([3, 1], 0.1, 3)]
)
def test_what_is_left_for_training(counts: list[int], fraction: float | None, left: int) -> None:
    assert n_left_for_training(counts, fraction) == left


def test_a_weights_header_must_describe_the_file() -> None:
    def file(header: bytes, data: bytes = b"") -> io.BytesIO:
        return io.BytesIO(struct.pack("<Q", len(header)) + header + data)

    whole = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    assert read_shapes(file(whole, bytes(8))) == {"w": [2]}
    side_by_side = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":%s}' % whole[5:-1]
    for bad in (
        file(whole, bytes(7)),
        file(whole, bytes(9)),
        file(whole.replace(b"[0,8]", b"[4,12]"), bytes(12)),
        file(side_by_side, bytes(8)),
        file(whole.replace(b"[2]", b"[true,2]"), bytes(8)),
        file(whole.replace(b"[2]", b"[%s2]" % (b"1," * 64)), bytes(8)),
        file(b"{}"),
        file(b"{"),
        file(b'{"w": 1}'),
        file(b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', bytes(8)),
        file(b'{"w":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        io.BytesIO(struct.pack("<Q", 2**60) + b"{"),
    ):
        with pytest.raises(Invalid, match="safetensors"):
            read_shapes(bad)
