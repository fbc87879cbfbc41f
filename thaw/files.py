"""Files: data sets and weights on the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from thaw.downloads import Progress, fetch
from thaw.packing import Package, packed
from thaw.paging import pages
from thaw.shapes import Artifact, File
from thaw.transport import Transport

PATH = "/v1/files"
PURPOSE = "fine-tune"


class Files:
    """The team's files."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(self, path: Path, progress: Progress | None = None, reuse: bool = True) -> File:
        """Upload a file, or a folder of class folders as a zip, read from disk while it is sent.

        With `reuse`, bytes that the team already has are not sent again.
        """
        with packed(path) as package:
            return self.send(package, progress, reuse)

    def send(self, package: Package, progress: Progress | None = None, reuse: bool = True) -> File:
        """Upload what is packed already."""
        if reuse and (there := self.find(package.sha256)):
            return there
        with package.path.open("rb") as content:
            counted = _Counted(content, package.bytes, progress)
            raw = self._transport.upload(PATH, {"purpose": PURPOSE}, package.name, counted)
        return File.read(raw)

    def find(self, sha256: str) -> File | None:
        """The team's file with these bytes, where there is one."""
        for file in self.list():
            if file.sha256 == sha256:
                return File.read(file.raw, reused=True)
        return None

    def list(self) -> Iterator[File]:
        """Every file of the team, fetched a page at a time."""
        return (File.read(raw) for raw in pages(self._transport, PATH))

    def get(self, file_id: str) -> File:
        """One file of the team."""
        return File.read(self._transport.get(_path(file_id)))

    def download(
        self, file: File, folder: Path, progress: Progress | None = None, *, called: str | None = None
    ) -> Path:
        """The file's bytes in `folder`, whole and checked, or not there at all."""
        bytes_there = Artifact(file.name, file.bytes, file.sha256)
        path = f"{_path(file.id)}/content"
        return fetch(self._transport, path, bytes_there, folder, progress, called=called)

    def delete(self, file_id: str) -> None:
        """Remove a file. Raises ServerRefused when a job still needs it."""
        self._transport.delete(_path(file_id))


def _path(file_id: str) -> str:
    return f"{PATH}/{quote(file_id, safe='')}"


class _Counted:
    """A file that says how much of it has been read."""

    def __init__(self, file: BinaryIO, total: int, progress: Progress | None) -> None:
        self._file = file
        self._total = total
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        if self._progress:
            self._progress(self._file.tell(), self._total)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()
