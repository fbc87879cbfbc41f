"""A submission that outlives a lost answer: named once, and sent again until its answer has come."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from thaw.errors import ServerRefused, ServerUnreachable, UsageError
from thaw.following import passes
from thaw.transport import Transport

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 5.0


def new_key() -> str:
    """A name that no other submission has."""
    return str(uuid4())


def submit_once(
    transport: Transport, path: str, spec: Mapping[str, Any], key: str, patience_s: float
) -> dict[str, Any]:
    """The answer to POST, asked for again for `patience_s` where it was lost, or the server was busy.

    Raises ServerUnreachable, at once where nothing was reached the first time, ServerRefused, and UsageError
    for a key that no header can hold.
    """
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the Idempotency-Key {key!r} has characters other than printable ASCII")
    give_up_at, wait_s, may_have_acted = time.monotonic() + patience_s, _FIRST_WAIT_S, False
    while True:
        try:
            return transport.post(path, spec, headers={"Idempotency-Key": key})
        except ServerUnreachable as error:
            may_have_acted = may_have_acted or error.may_have_acted
            if not may_have_acted:
                raise
            if time.monotonic() + wait_s > give_up_at:
                raise _lost(error, key) from error
        except ServerRefused as error:
            may_have_acted = True
            wait_s = max(wait_s, error.retry_after_s or 0.0)
            if not passes(error) or time.monotonic() + wait_s > give_up_at:
                raise
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _lost(error: ServerUnreachable, key: str) -> ServerUnreachable:
    hint = f"with the Idempotency-Key {key} it can be asked for again, and no second one is made"
    return ServerUnreachable(f"{error}. The job may be there already: {hint}", may_have_acted=True)
