"""The store's contract. Adapters differ only in how bytes are written and addresses signed."""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import obstore
from obstore.store import ObjectStore

from shared.artifacts.errors import ArtifactNotFound, store_errors
from shared.artifacts.keys import checked_key
from shared.domain.errors import Invalid

if TYPE_CHECKING:
    from obstore import ObjectMeta  # a type only: not there at run time

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class StoredObject:
    """What was written: its key, its size in bytes, and the SHA-256 of its bytes in hexadecimal."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One line of a listing; size in bytes."""

    key: str
    size: int
    modified: datetime


class ArtifactStore(ABC):
    """Objects by key. An object is seen whole or not at all; every method may be called from any thread.

    Every method raises `BadKey` for a key it cannot hold and `StoreUnavailable` where the store fails.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> StoredObject:
        """Store `data`, in place of what was there; with `if_absent`, raise `ArtifactExists` instead."""
        self._write_small(checked_key(key), data, if_absent=if_absent)
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    def put_stream(self, key: str, chunks: Iterator[bytes], *, if_absent: bool = False) -> StoredObject:
        """Store what `chunks` yields, in constant memory. What it raises is raised on, and nothing stored."""
        counted = _Counted(chunks)
        try:
            self._write(checked_key(key), counted, if_absent=if_absent)
        except Exception:
            if counted.failure is not None:
                raise counted.failure from None
            raise
        return StoredObject(key, counted.size, counted.sha256)

    def stream(self, key: str, start: int | None = None, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes in chunks, from `start` up to but not including `end`.

        A range is cut to what is there. A missing object raises `ArtifactNotFound` at once, not later.
        """
        checked_key(key)
        if start is None and end is None:
            with store_errors("read", key):
                return self._chunks(key, obstore.get(self._objects, key))
        first, last = _cut(start, end, self.head(key))
        if first >= last:
            return iter(())
        with store_errors("read", key):
            return self._chunks(key, obstore.get(self._objects, key, options={"range": (first, last)}))

    def head(self, key: str) -> int:
        """The object's size in bytes; `ArtifactNotFound` where there is none."""
        with store_errors("find", checked_key(key)):
            return int(obstore.head(self._objects, key)["size"])

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        try:
            self.head(key)
        except ArtifactNotFound:
            return False
        return True

    def list(self, prefix: str = "") -> tuple[Entry, ...]:
        """All objects below `prefix`, ordered by key. `a/b` is below `a`; `ab` is not."""
        if prefix:
            checked_key(prefix)
        with store_errors("list", prefix):
            listed = entries_of(obstore.list(self._objects, prefix or None, chunk_size=1000))
            found = [entry for entry in listed if not entry.key.startswith(".")]
        return tuple(sorted(found, key=lambda entry: entry.key))

    def page(self, *, after: str, limit: int) -> tuple[Entry, ...]:
        """The first `limit` objects in the order of keys, from behind the key `after`; fewer at the end."""
        with store_errors("list from", after):
            return tuple(islice((one for one in self._behind(after) if not one.key.startswith(".")), limit))

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove these objects; those that are not there are no error."""
        if keys:
            self._remove([checked_key(key) for key in keys])

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        self._remove([checked_key(key)])

    @abstractmethod
    def signed_url(self, key: str, expires_s: int) -> str | None:
        """An address from which anyone can fetch it for `expires_s` seconds; None: stream it instead."""

    def check(self) -> None:
        """Write and remove a small object within seconds; `StoreUnavailable` where that fails."""
        key = f".check/{uuid.uuid4().hex}"
        self._probe(key)
        self._remove([key])

    def _behind(self, after: str) -> Iterator[Entry]:
        """Every object behind `after`, in the order of the keys, for an adapter that lists in none."""
        listed = obstore.list(self._objects, offset=after or None, chunk_size=1000)
        return iter(sorted(entries_of(listed), key=lambda entry: entry.key))

    @abstractmethod
    def _probe(self, key: str) -> None:
        """Write a small object without waiting long for a store that does not answer."""

    @abstractmethod
    def _write_small(self, key: str, data: bytes, *, if_absent: bool) -> None:
        """Write bytes that are in memory anyway."""

    @abstractmethod
    def _write(self, key: str, chunks: Iterator[bytes], *, if_absent: bool) -> None:
        """Write all of `chunks`, or nothing that can be seen."""

    def _chunks(self, key: str, result: obstore.GetResult) -> Iterator[bytes]:
        with store_errors("read", key):
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def _remove(self, keys: Sequence[str]) -> None:
        with store_errors("delete", ", ".join(keys[:3])):
            obstore.delete(self._objects, keys)


class _Counted(Iterator[bytes]):
    """Passes chunks on, counted and hashed; keeps what the source raised, apart from the store's errors."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = iter(chunks)
        self._digest = hashlib.sha256()
        self.size = 0
        self.failure: Exception | None = None

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise
        self._digest.update(chunk)
        self.size += len(chunk)
        return chunk

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def entries_of(pages: Iterable[Sequence[ObjectMeta]]) -> Iterator[Entry]:
    """What obstore lists, as ours."""
    for page in pages:
        for item in page:
            yield Entry(item["path"], item["size"], item["last_modified"])


def _cut(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    first = 0 if start is None else start
    last = size if end is None else min(end, size)
    if first < 0 or last < 0:
        raise Invalid(f"range {start} to {end}: byte positions count from 0 and are not negative")
    return first, last
