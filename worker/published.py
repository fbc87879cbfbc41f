"""Published weights: from the node's weights_dir, or fetched over https, their sha256 checked either way."""

from __future__ import annotations

import hashlib
import shutil
import ssl
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from shared.domain.errors import Unavailable
from shared.domain.resolved import PublishedWeights
from worker.patience import HostAway

MAX_BYTES = 8 * 1024**3
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_S = 30.0
_AWAY = (URLError, TimeoutError, ConnectionError, ssl.SSLError, HTTPException)
_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS, _SERVER_ERRORS = 408, 429, 500

Open = Callable[[str], Any]


class BadWeights(Unavailable):
    """The bytes are not those that were published."""

    default_code = "weights_corrupt"


class NotHttps(URLError):
    """An address, or where it leads, that is not https."""


def fetch_published(
    weights: PublishedWeights,
    target: Path,
    *,
    weights_dir: Path | None,
    interrupted: Callable[[], None],
    open_url: Open | None = None,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the weights to `target`. `open_url` opens an address; the usual one lets nothing but https pass.

    Raises BadWeights for other bytes than were published, Unavailable where they cannot be had, and its
    HostAway where that may pass.
    """
    local = weights_dir / weights.file_name if weights_dir else None
    if local is not None and local.is_file():
        shutil.copyfile(local, target)
        where = str(local)
    else:
        where = weights.url
        try:
            with (open_url or open_https)(weights.url) as answer, target.open("xb") as file:
                _copy(answer, file, where, max_bytes, interrupted)
        except _AWAY as error:
            raise _unavailable(weights, error) from error
    _check(target, weights, where)


def open_https(url: str) -> Any:
    """Open an https address; redirects are followed to https only. Raises URLError."""
    _must_be_https(url)
    opener = OpenerDirector()
    handlers = (
        HTTPSHandler(),
        OnlyToHttps(),
        ProxyHandler(),
        HTTPErrorProcessor(),
        HTTPDefaultErrorHandler(),
    )
    for handler in handlers:
        opener.add_handler(handler)
    return opener.open(Request(url, headers={"User-Agent": "thaw"}), timeout=_TIMEOUT_S)  # noqa: S310 - https alone


class OnlyToHttps(HTTPRedirectHandler):
    """Refuses to be led from https to anything else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        _must_be_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _must_be_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise NotHttps(f"{url} is not an https address")


def _unavailable(weights: PublishedWeights, error: Exception) -> Unavailable:
    kind = HostAway if _may_pass(error) else Unavailable
    return kind(
        f"the weights {weights.name} cannot be fetched from {weights.url}: {error}; "
        f"put {weights.file_name} into the node's weights_dir, or let the node reach that address",
        code="weights_unavailable",
    )


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code >= _SERVER_ERRORS or error.code in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS)
    return not isinstance(error, NotHttps)


def _copy(
    source: HTTPResponse, target: IO[bytes], where: str, most: int, interrupted: Callable[[], None]
) -> None:
    size = 0
    while data := source.read(_CHUNK_BYTES):
        interrupted()
        size += len(data)
        if size > most:
            raise BadWeights(f"{where} is larger than {most} bytes, which no published weights are")
        target.write(data)
    if source.length:
        raise ConnectionError(f"the answer ended {source.length} bytes too early")


def _check(path: Path, weights: PublishedWeights, where: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not weights.sha256 or not found.startswith(weights.sha256.lower()):
        raise BadWeights(f"{where} has SHA-256 {found}; published was {weights.sha256}...")
