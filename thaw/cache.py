"""Where this machine keeps what it could fetch again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(kind: str, env: Mapping[str, str] = os.environ) -> Path:
    """The folder for one kind of thing: below THAW_CACHE, or `thaw` under XDG_CACHE_HOME (`~/.cache`)."""
    if own := env.get("THAW_CACHE"):
        return Path(own).expanduser() / kind
    home = env.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "thaw" / kind
