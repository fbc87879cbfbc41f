"""Local data made ready to upload: one folder always becomes the same zip, byte for byte."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from thaw.errors import UsageError

_CHUNK = 1 << 20
# Zip's first day: the time of a file must not change the archive's hash.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16
# Beside one of these, pictures need no class folders.
_TELLING = frozenset({"classes.txt", "labels.csv"})
_SUFFIXES = {".zip", ".parquet", ".safetensors"}


@dataclass(frozen=True)
class Package:
    """One file to upload. `left_out` are the hidden files of a folder, which are never packed."""

    path: Path
    name: str
    sha256: str
    bytes: int
    left_out: tuple[str, ...] = ()


@contextmanager
def packed(source: Path) -> Iterator[Package]:
    """`source` as one file: itself, or a zip of the folder, which is removed afterwards.

    Raises UsageError where there is nothing of a known kind.
    """
    if source.is_dir():
        with TemporaryDirectory(prefix="thaw-") as scratch:
            archive = Path(scratch) / f"{source.resolve().name}.zip"
            left_out = zip_folder(source, archive)
            yield _package(archive, left_out)
    elif source.suffix.lower() in _SUFFIXES and source.is_file():
        yield _package(source)
    elif source.is_file():
        raise UsageError(f"{source}: give a folder of pictures, or a {', '.join(sorted(_SUFFIXES))}")
    else:
        raise UsageError(f"{source}: no such file or folder")


def zip_folder(folder: Path, archive: Path) -> tuple[str, ...]:
    """Write the folder's files to `archive`, in the order of their names and without their times.

    Returns the hidden files that were left out. Nothing is compressed: pictures already are, and another
    version of zlib would give other bytes. Raises UsageError on an empty folder, one of pictures that
    nothing tells the classes of, and one that holds links to folders.
    """
    found = sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).parts)
    if links := [path for path in found if path.is_symlink() and not path.is_file()]:
        raise UsageError(
            f"{links[0]}: a link to a folder, or to nothing, is not followed; put the files here"
        )
    files = [path for path in found if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    hidden = tuple(name for name in names if any(part.startswith(".") for part in name.split("/")))
    shown = {name: path for name, path in names.items() if name not in set(hidden)}
    if not shown:
        raise UsageError(f"{folder}: holds no files; give a folder with one folder of pictures a class")
    loose = [name for name in shown if "/" not in name]
    if loose and not _TELLING.intersection(loose):
        raise UsageError(
            f"{folder}: {loose[0]!r} lies outside of any class folder; each class is a folder, "
            f"or {' or '.join(sorted(_TELLING))} lies beside the pictures"
        )
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        for name, path in shown.items():
            _add(out, name, path)
    return hidden


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(out: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.external_attr = _MODE
    entry.create_system = 3
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, out.open(entry, "w") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)


def _package(path: Path, left_out: tuple[str, ...] = ()) -> Package:
    return Package(path, path.name, file_sha256(path), path.stat().st_size, left_out)
