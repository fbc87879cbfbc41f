"""Weights that torchvision published, fetched here. A server names the address, so that not any will do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from thaw.downloads import Progress
from thaw.errors import DamagedDownload, ServerUnreachable, UsageError
from thaw.whole_files import written_whole

HOSTS = frozenset({"download.pytorch.org"})
MAX_BYTES = 8 * 1024**3
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


def fetch_published(
    weights: Mapping[str, Any],
    sha256: str,
    target: Path,
    progress: Progress | None = None,
    *,
    transport: httpx.BaseTransport | None = None,
    max_bytes: int = MAX_BYTES,
) -> None:
    """The file at `weights["url"]`, over https, from torchvision's own host, led to no other.

    Raises UsageError for another address, ServerUnreachable where the host does not give it, and its
    DamagedDownload for other bytes than `sha256` says; nothing is left in place then.
    """
    url = str(weights["url"])
    _check_address(url, weights)
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, transport=transport) as http,
            http.stream("GET", url) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise ServerUnreachable(f"{url} answered {answer.status_code}{_way_out(weights)}")
            _keep(answer, url, sha256, target, progress, max_bytes)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise ServerUnreachable(f"{url} cannot be fetched: {why}{_way_out(weights)}") from error


def _check_address(url: str, weights: Mapping[str, Any]) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.netloc not in HOSTS:
        raise UsageError(
            f"the weights {weights['name']} lie at {url}, and only https://{' or '.join(HOSTS)} is asked on "
            "a server's word; fetch them yourself and name the file with --base"
        )


def _keep(
    answer: httpx.Response,
    url: str,
    sha256: str,
    target: Path,
    progress: Progress | None,
    max_bytes: int,
) -> None:
    total, digest = int(answer.headers.get("Content-Length", 0)), hashlib.sha256()
    with written_whole(target) as out:
        for piece in answer.iter_bytes():
            out.write(piece)
            digest.update(piece)
            if out.tell() > max_bytes:
                raise DamagedDownload(f"{url} gives more than {max_bytes:,} bytes, which no weights have")
            if progress:
                progress(out.tell(), total)
        if digest.hexdigest() != sha256:
            raise DamagedDownload(f"{url} has SHA-256 {digest.hexdigest()}, and the job began from {sha256}")


def _way_out(weights: Mapping[str, Any]) -> str:
    return f"; fetch {weights['file_name']} elsewhere and name it with --base"
