"""Published weights: from the node's weights_dir, or fetched over https, their sha256 checked either way."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
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

MAX_BYTES = 8 * 1024**3
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_S = 30.0

Open = Callable[[str], Any]


class BadWeights(Unavailable):
    """The bytes are not those that were published."""

    default_code = "weights_corrupt"


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

    Raises BadWeights for other bytes than were published, Unavailable where they cannot be had.
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
        except (HTTPError, URLError, TimeoutError, ConnectionError) as error:
            raise Unavailable(
                f"the weights {weights.name} cannot be fetched from {where}: {error}; "
                f"put {weights.file_name} into the node's weights_dir, or let the node reach that address",
                code="weights_unavailable",
            ) from error
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
        raise URLError(f"{url} is not an https address")


def _copy(
    source: IO[bytes], target: IO[bytes], where: str, most: int, interrupted: Callable[[], None]
) -> None:
    size = 0
    while data := source.read(_CHUNK_BYTES):
        interrupted()
        size += len(data)
        if size > most:
            raise BadWeights(f"{where} is larger than {most} bytes, which no published weights are")
        target.write(data)


def _check(path: Path, weights: PublishedWeights, where: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not weights.sha256 or not found.startswith(weights.sha256.lower()):
        raise BadWeights(f"{where} has SHA-256 {found}; published was {weights.sha256}...")
