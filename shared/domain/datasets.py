"""What a zip of class folders must look like, and what is in it. Nothing is unpacked here.

    digits.zip:  zero/1.png  zero/2.png  one/1.png ...      or all of that inside one folder more

A class is a folder's name. Hidden files and folders, `__MACOSX`, `Thumbs.db` and `desktop.ini` are ignored.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from shared.domain.errors import Invalid, TooLarge

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_FILE_KINDS = frozenset({0, stat.S_IFREG, stat.S_IFDIR})
_MAX_NAME = 1000
_MAX_PART_BYTES = 255
# An entry of a zip's index is 46 bytes and its name; this leaves room for long names and extra fields.
_INDEX_BYTES_A_FILE = 400
_LAYOUT = "a zip holds one folder a class with pictures in it: cat/1.png, dog/1.png"


@dataclass(frozen=True)
class Caps:
    """How much an archive may hold: members, bytes unpacked, unpacked over packed bytes."""

    files: int
    unpacked_bytes: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture: its name in the archive, the class it belongs to, and its name within the class's folder."""

    member: str
    class_name: str
    file_name: str


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of an archive, in the order of their names, and how many names were ignored."""

    samples: tuple[Sample, ...]
    n_ignored: int

    @property
    def counts(self) -> dict[str, int]:
        """Pictures of each class; classes in the order of their names."""
        return dict(sorted(Counter(sample.class_name for sample in self.samples).items()))


def open_archive(file: BinaryIO, caps: Caps) -> zipfile.ZipFile:
    """The archive in a seekable file. Raises Invalid for what is no zip, TooLarge for too long an index."""
    _check_index(file, caps)
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, ValueError) as error:
        raise _bad(f"this is no readable zip archive ({error}); {_LAYOUT}") from error


def read_image_folder(archive: zipfile.ZipFile, packed_bytes: int, caps: Caps) -> ImageFolder:
    """What the archive holds, judged by its index alone. `packed_bytes` is the archive's own size.

    Raises Invalid and TooLarge, both naming the member that is wrong.
    """
    members = archive.infolist()
    _check_amount(members, packed_bytes, caps)
    for member in members:
        _check_member(member, caps)
    files = [member for member in members if not member.is_dir()]
    _check_no_doubles(member.filename for member in files)
    kept = {member.filename: _parts(member.filename) for member in files if not _is_ignored(member.filename)}
    if not kept:
        raise _bad(f"the archive holds no pictures; {_LAYOUT}")
    samples = sorted(_samples(kept), key=lambda sample: sample.member)
    _check_no_doubles(f"{sample.class_name}/{sample.file_name}" for sample in samples)
    return ImageFolder(tuple(samples), len(files) - len(kept))


def n_set_aside(n_samples: int, fraction: float) -> int:
    """How many of a class's samples validation gets: each class keeps one at least for training."""
    return min(round(fraction * n_samples), n_samples - 1)


def n_left_for_training(samples_per_class: Sequence[int], fraction: float | None) -> int:
    """Samples to train on where a share of each class, and one in all at least, is set aside."""
    n_samples = sum(samples_per_class)
    if fraction is None:
        return n_samples
    return n_samples - max(1, sum(n_set_aside(n, fraction) for n in samples_per_class))


def _samples(kept: dict[str, list[str]]) -> Iterator[Sample]:
    wrapped = len({parts[0] for parts in kept.values()}) == 1 and all(len(p) > 2 for p in kept.values())
    for name, all_parts in kept.items():
        parts = all_parts[1:] if wrapped else all_parts
        if len(parts) < 2:
            raise _bad(f"{name!r} lies in no class folder; {_LAYOUT}")
        if len(parts) > 2:
            raise _bad(
                f"{name!r} lies too deep; {_LAYOUT}, or all of them inside a single folder; "
                "training and validation are two archives"
            )
        suffix = f".{parts[1].rpartition('.')[2].lower()}"
        if suffix not in PICTURE_SUFFIXES:
            raise _bad(
                f"{name!r} is no picture; a class folder holds only {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        yield Sample(name, parts[0], parts[1])


def _check_amount(members: Sequence[zipfile.ZipInfo], packed_bytes: int, caps: Caps) -> None:
    if len(members) > caps.files:
        raise _too_large(f"the archive has {len(members):,} members, at most {caps.files:,} are allowed")
    unpacked = sum(member.file_size for member in members)
    if unpacked > caps.unpacked_bytes:
        raise _too_large(
            f"the archive unpacks to {unpacked:,} bytes, at most {caps.unpacked_bytes:,} are allowed"
        )
    if unpacked > caps.ratio * max(packed_bytes, 1):
        raise _too_large(
            f"the archive unpacks to {unpacked / max(packed_bytes, 1):.0f} times its size, "
            f"at most {caps.ratio:g} times are allowed"
        )


def _check_member(member: zipfile.ZipInfo, caps: Caps) -> None:
    name = member.filename
    _check_name(name)
    if stat.S_IFMT(member.external_attr >> 16) not in _FILE_KINDS:
        raise _bad(f"{name!r} is a link or a special file; an archive holds plain files only")
    if member.flag_bits & 0x1:
        raise _bad(f"{name!r} is encrypted; pack the archive without a password")
    if member.compress_type not in _METHODS:
        raise _bad(f"{name!r} is packed by method {member.compress_type}; use deflate, or no compression")
    if member.file_size > caps.ratio * max(member.compress_size, 1):
        raise _too_large(
            f"{name!r} unpacks to {member.file_size / max(member.compress_size, 1):.0f} times its size, "
            f"at most {caps.ratio:g} times are allowed"
        )


def _check_name(name: str) -> None:
    if not 0 < len(name) <= _MAX_NAME:
        raise _bad(f"a member's name has {len(name)} characters; 1 to {_MAX_NAME} are allowed")
    if any(len(part.encode("utf-8", "surrogateescape")) > _MAX_PART_BYTES for part in name.split("/")):
        raise _bad(f"{name!r} has a part longer than {_MAX_PART_BYTES} bytes, which no folder can hold")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise _bad(f"{name!r} leads out of the archive; names are relative and have no '..'")
    if "\\" in name or not name.isprintable():
        raise _bad(f"{name!r} has a backslash or a control character; folders are separated by '/'")


def _check_no_doubles(names: Iterable[str]) -> None:
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise _bad(f"{name!r} is in the archive {count} times; every name must be unique")


def _check_index(file: BinaryIO, caps: Caps) -> None:
    """A zip's index is read into memory at once, so its stated size is looked at first."""
    size = file.seek(0, 2)
    tail_at = max(0, size - 65_536 - 22 - 20)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(tail):
        raise _bad(f"this is no whole zip archive (it has no index at its end); {_LAYOUT}")
    index_bytes: int = struct.unpack_from("<L", tail, end + 12)[0]
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        # Readers differ in where they look for the wide record: where its locator says, or right before it.
        stated = struct.unpack_from("<Q", tail, end - 20 + 8)[0]
        wide = [_wide_index_bytes(file, place) for place in (min(stated, size), tail_at + end - 20 - 56)]
        index_bytes = max(index_bytes if index_bytes < 0xFFFFFFFF else 0, *wide)
    if index_bytes > _INDEX_BYTES_A_FILE * caps.files:
        raise _too_large(
            f"the archive's index has {index_bytes:,} bytes: that is more than {caps.files:,} members need"
        )


def _wide_index_bytes(file: BinaryIO, place: int) -> int:
    """The size of the index as the zip64 record at `place` states it; 0 where none is there."""
    file.seek(max(0, place))
    record = file.read(56)
    is_one = len(record) == 56 and record.startswith(b"PK\x06\x06")
    return int(struct.unpack_from("<Q", record, 40)[0]) if is_one else 0


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _is_ignored(name: str) -> bool:
    return any(part.startswith(".") or part in _IGNORED_NAMES for part in _parts(name))


def _bad(message: str) -> Invalid:
    return Invalid(message, param="file", code="bad_archive")


def _too_large(message: str) -> TooLarge:
    return TooLarge(message, param="file", code="archive_too_large")
