"""Ids that say what they name: ftjob-..., file-..., with 120 random bits each."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o, u: read aloud without mistakes


def new_id(kind: str) -> str:
    """A new id, `kind` and 24 characters: `new_id("ftjob")` -> "ftjob-7w2k..."."""
    return f"{kind}-{''.join(secrets.choice(_ALPHABET) for _ in range(24))}"
