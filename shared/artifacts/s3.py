"""Artifacts in a bucket of S3, or of a store that speaks its protocol."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from shared.artifacts.errors import store_errors
from shared.artifacts.keys import checked_key
from shared.artifacts.store import ArtifactStore, Entry, entries_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config  # types only: not there at run time

# Memory of one upload is the product of the two. S3 takes 10,000 parts: objects of up to 78 GiB.
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 3


class S3Artifacts(ArtifactStore):
    """Objects below `prefix` in a bucket. `signing` is None where nobody outside could follow an address.

    Large writes are multipart uploads, which obstore aborts when the source fails; a process that is killed
    leaves parts that cost space unseen, so give the bucket a rule that removes incomplete uploads.
    """

    def __init__(self, bucket: str, prefix: str | None, config: S3Config, signing: S3Config | None) -> None:
        super().__init__(_patient(bucket, prefix, config))
        self._impatient = _impatient(bucket, prefix, config)
        self._signing = None if signing is None else _impatient(bucket, prefix, signing)

    def signed_url(self, key: str, expires_s: int) -> str | None:
        """An address that needs no other permission, or None where the API is to stream instead."""
        checked_key(key)
        if self._signing is None:
            return None
        with store_errors("sign", key):
            return obstore.sign(self._signing, "GET", key, timedelta(seconds=expires_s))

    def _behind(self, after: str) -> Iterator[Entry]:
        # S3 lists in the order of the keys, so a page of millions of objects costs a page.
        return entries_of(obstore.list(self._objects, offset=after or None, chunk_size=1000))

    def _probe(self, key: str) -> None:
        with store_errors("write", key, writing=True):
            obstore.put(self._impatient, key, b"")

    def _write_small(self, key: str, data: bytes, *, if_absent: bool) -> None:
        with store_errors("write", key, writing=True):
            obstore.put(self._objects, key, data, mode="create" if if_absent else "overwrite")

    def _write(self, key: str, chunks: Iterator[bytes], *, if_absent: bool) -> None:
        if not if_absent:
            return self._upload(key, chunks)
        # obstore's create-only write holds all bytes in memory; a copy can be create-only as well.
        aside = f".incoming/{uuid.uuid4().hex}"
        self._upload(aside, chunks)
        try:
            with store_errors("write", key, writing=True):
                obstore.copy(self._objects, aside, key, overwrite=False)
        finally:
            self._remove([aside])

    def _upload(self, key: str, chunks: Iterator[bytes]) -> None:
        with store_errors("write", key, writing=True):
            obstore.put(self._objects, key, chunks, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)


def _patient(bucket: str, prefix: str | None, config: S3Config) -> S3Store:
    # The limit on a whole request is 30 s by default, too short for a large object's bytes on a slow line;
    # a line that went silent is found by the read timeout.
    client: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=60),
        "timeout": timedelta(hours=6),
    }
    retry: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
    return S3Store(bucket, prefix=prefix, config=config, client_options=client, retry_config=retry)


def _impatient(bucket: str, prefix: str | None, config: S3Config) -> S3Store:
    client: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=2),
        "timeout": timedelta(seconds=3),
    }
    retry: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=3)}
    return S3Store(bucket, prefix=prefix, config=config, client_options=client, retry_config=retry)
