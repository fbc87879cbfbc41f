"""Idempotency-Key: what a key may be, and when two requests are the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain.errors import Invalid
from shared.domain.job_kind import JobKind
from shared.domain.spec import AnyJobSpec

HEADER = "Idempotency-Key"
MAX_LENGTH = 255
_PRINTABLE = re.compile(rf"[\x20-\x7e]{{1,{MAX_LENGTH}}}\Z")


@dataclass(frozen=True)
class Submission:
    """A request that its sender has named. `sha256` is the same for the same request, whatever its layout."""

    key: str
    sha256: str


def read_key(headers: Sequence[str]) -> str | None:
    """The key among the headers of that name; None without one. Raises Invalid for what cannot be a key."""
    if not headers:
        return None
    if len(headers) > 1:
        raise Invalid(f"{len(headers)} of these headers came; send one {HEADER}", param=HEADER)
    if not _PRINTABLE.match(headers[0]):
        raise Invalid(
            f"a key has 1 to {MAX_LENGTH} printable ASCII characters (got {len(headers[0])} characters); "
            "a new UUID for each submission does well",
            param=HEADER,
        )
    return headers[0]


def request_sha256(kind: JobKind, spec: AnyJobSpec) -> str:
    """The identity of a request as it was understood: the kind of job, and every field that says anything.

    Layout, the order of keys and defaults that were spelled out make no difference; nor does a field that a
    later version adds.
    """
    told = {"kind": kind, "spec": spec.model_dump(mode="json", exclude_defaults=True)}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
