"""Artifacts in a folder of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.store import LocalStore

from shared.artifacts.durable import finish, flushed_file, make_folder, publish
from shared.artifacts.errors import store_errors
from shared.artifacts.keys import checked_key
from shared.artifacts.store import ArtifactStore

_ABANDONED_AFTER_S = 24 * 3600


class LocalArtifacts(ArtifactStore):
    """One file an object, below a folder that only this user can read.

    obstore reads, lists and deletes. It flushes nothing to disk when it writes (seen with strace: no fsync of
    file or folder), so this class writes by itself. A key cannot lie below another object's key here.
    """

    def __init__(self, root: Path) -> None:
        with store_errors("open", str(root)):
            make_folder(root)
            self._root = root
            self._incoming = root / ".incoming"
            make_folder(self._incoming)
            super().__init__(LocalStore(root, automatic_cleanup=True))
            self._discard_abandoned()

    def signed_url(self, key: str, expires_s: int) -> str | None:
        """None: a folder has no address."""
        checked_key(key)
        return None

    def _probe(self, key: str) -> None:
        self._write_small(key, b"", if_absent=True)

    def _write_small(self, key: str, data: bytes, *, if_absent: bool) -> None:
        self._write(key, iter([data]), if_absent=if_absent)

    def _write(self, key: str, chunks: Iterator[bytes], *, if_absent: bool) -> None:
        with (
            store_errors("write", key, writing=True),
            flushed_file(self._incoming) as (file, path),
        ):
            for chunk in chunks:
                file.write(chunk)
            finish(file)
            publish(path, self._root / key, if_absent=if_absent)

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            with store_errors("delete", key), suppress(FileNotFoundError):
                obstore.delete(self._objects, key)

    def _discard_abandoned(self) -> None:
        """Remove what writers that were killed have left; a living one has touched its file since."""
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()
