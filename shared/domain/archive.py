"""An uploaded zip, held to caps and to names that stay inside. Nothing is unpacked here.

Hidden files and folders, `__MACOSX`, `Thumbs.db` and `desktop.ini` are ignored.
"""

from __future__ import annotations

import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from shared.domain.errors import Invalid, TooLarge

_IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_FILE_KINDS = frozenset({0, stat.S_IFREG, stat.S_IFDIR})
_MAX_NAME = 1000
_MAX_PART_BYTES = 255
_MAX_TEXT_BYTES = 64 * 2**20
_CHUNK_BYTES = 1024 * 1024
# An entry of a zip's index is 46 bytes and its name; this leaves room for long names and extra fields.
_INDEX_BYTES_A_FILE = 400


@dataclass(frozen=True)
class Caps:
    """How much an archive may hold: members, bytes unpacked, unpacked over packed bytes."""

    files: int
    unpacked_bytes: int
    ratio: float


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of a data set: its name in the archive, and the path at which it is unpacked."""

    member: str
    path: str


@dataclass(frozen=True)
class Listing:
    """The parts of each member's name that counts, by that name, and how many names were ignored."""

    parts: Mapping[str, list[str]]
    n_ignored: int

    def unwrapped(self) -> Listing:
        """The same without the one folder that holds everything, where there is one."""
        if len({parts[0] for parts in self.parts.values()}) > 1 or any(
            len(p) < 2 for p in self.parts.values()
        ):
            return self
        return Listing({name: parts[1:] for name, parts in self.parts.items()}, self.n_ignored)

    def at(self, path: str) -> str | None:
        """The member that lies at `path`."""
        return next((name for name, parts in self.parts.items() if "/".join(parts) == path), None)


def open_archive(file: BinaryIO, caps: Caps) -> zipfile.ZipFile:
    """The archive in a seekable file. Raises Invalid for what is no zip, TooLarge for too long an index."""
    _check_index(file, caps)
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, ValueError) as error:
        raise bad_archive(f"this is no readable zip archive ({error})") from error


def list_files(archive: zipfile.ZipFile, packed_bytes: int, caps: Caps) -> Listing:
    """What the archive holds, judged by its index alone. `packed_bytes` is the archive's own size.

    Raises Invalid and TooLarge, both naming the member that is wrong.
    """
    members = archive.infolist()
    _check_amount(members, packed_bytes, caps)
    for member in members:
        _check_member(member, packed_bytes, caps)
    files = [member for member in members if not member.is_dir()]
    check_no_doubles(member.filename for member in files)
    kept = {member.filename: _parts(member.filename) for member in files if not _is_ignored(member.filename)}
    if not kept:
        raise bad_archive("the archive holds no pictures")
    return Listing(kept, len(files) - len(kept))


def pieces(archive: zipfile.ZipFile, member: str) -> Iterator[bytes]:
    """A member's bytes. Raises Invalid where they are damaged, TooLarge for more than the index states."""
    stated, given = archive.getinfo(member).file_size, 0
    try:
        with archive.open(member) as packed:
            while data := packed.read(_CHUNK_BYTES):
                given += len(data)
                if given > stated:
                    raise _too_large(f"{member!r} unpacks to more than the {stated} bytes that it states")
                yield data
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(member, error) from error
    except OSError as error:
        if error.errno is not None:  # the disk's; bz2 raises one of its own
            raise
        raise _damaged(member, error) from error


def read_text(archive: zipfile.ZipFile, member: str) -> str:
    """A member as UTF-8 text. Raises Invalid for what is none, TooLarge beyond 64 MiB."""
    stated = archive.getinfo(member).file_size
    if stated > _MAX_TEXT_BYTES:
        raise _too_large(f"{member!r} has {stated:,} bytes; at most {_MAX_TEXT_BYTES:,} are read")
    try:
        return b"".join(pieces(archive, member)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_archive(f"{member!r} is no UTF-8 text: {error}") from error


def check_no_doubles(names: Iterable[str]) -> None:
    """Raises Invalid for a name that is there twice."""
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise bad_archive(f"{name!r} is in the archive {count} times; every name must be unique")


def bad_archive(message: str) -> Invalid:
    """The error for an archive that is not as it must be."""
    return Invalid(message, param="file", code="bad_archive")


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


def _check_member(member: zipfile.ZipInfo, packed_bytes: int, caps: Caps) -> None:
    name = member.filename
    _check_name(name)
    if not 0 <= member.header_offset < packed_bytes:
        raise bad_archive(f"{name!r} would begin outside of the archive: its index is damaged")
    if stat.S_IFMT(member.external_attr >> 16) not in _FILE_KINDS:
        raise bad_archive(f"{name!r} is a link or a special file; an archive holds plain files only")
    if member.flag_bits & 0x1:
        raise bad_archive(f"{name!r} is encrypted; pack the archive without a password")
    if member.compress_type not in _METHODS:
        raise bad_archive(
            f"{name!r} is packed by method {member.compress_type}; use deflate, or no compression"
        )
    if member.file_size > caps.ratio * max(member.compress_size, 1):
        raise _too_large(
            f"{name!r} unpacks to {member.file_size / max(member.compress_size, 1):.0f} times its size, "
            f"at most {caps.ratio:g} times are allowed"
        )


def _check_name(name: str) -> None:
    if not 0 < len(name) <= _MAX_NAME:
        raise bad_archive(f"a member's name has {len(name)} characters; 1 to {_MAX_NAME} are allowed")
    if any(len(part.encode("utf-8", "surrogateescape")) > _MAX_PART_BYTES for part in name.split("/")):
        raise bad_archive(
            f"{name!r} has a part longer than {_MAX_PART_BYTES} bytes, which no folder can hold"
        )
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise bad_archive(f"{name!r} leads out of the archive; names are relative and have no '..'")
    if "\\" in name or not name.isprintable():
        raise bad_archive(f"{name!r} has a backslash or a control character; folders are separated by '/'")


def _check_index(file: BinaryIO, caps: Caps) -> None:
    """A zip's index is read into memory at once, so its stated size is looked at first."""
    size = file.seek(0, 2)
    tail_at = max(0, size - 65_536 - 22 - 20)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(tail):
        raise bad_archive("this is no whole zip archive (it has no index at its end)")
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


def _damaged(member: str, error: Exception) -> Invalid:
    return bad_archive(f"{member!r} cannot be unpacked: {error}")


def _too_large(message: str) -> TooLarge:
    return TooLarge(message, param="file", code="archive_too_large")
