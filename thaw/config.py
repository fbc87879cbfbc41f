"""Which server, and who asks: from the environment, or from a profile in the configuration file.

The file is `thaw/config.toml` under XDG_CONFIG_HOME (`~/.config` when that is not set):

    [default]
    url = "https://thaw.example.org"
    key_file = "~/.thaw-key"          # or api_key = "..."
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from thaw.errors import UsageError

DEFAULT_PROFILE = "default"
_FIELDS = frozenset({"url", "api_key", "key_file"})
_HOW = (
    "set THAW_URL and THAW_API_KEY, give --url and --key-file, or write a profile to {file}."
    " `thaw up` starts a server here and says where its key is."
)


@dataclass(frozen=True)
class Connection:
    """Where the server is and the key to it."""

    url: str
    api_key: str


def connection(
    url: str | None = None,
    key_file: Path | None = None,
    profile: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> Connection:
    """What was given, else the environment, else the profile. Raises UsageError when a part is nowhere.

    A named profile goes before the environment: it was asked for.
    """
    stored = _profile(profile, env)
    around = {} if profile else {"url": env.get("THAW_URL"), "api_key": env.get("THAW_API_KEY")}
    found_url = url or around.get("url") or stored.get("url")
    found_key = _read_key(key_file) if key_file else around.get("api_key") or _stored_key(stored)
    missing = [word for word, value in (("server address", found_url), ("API key", found_key)) if not value]
    if not found_url or not found_key:
        raise UsageError(f"no {' and no '.join(missing)}: {_HOW.format(file=config_file(env))}")
    return Connection(_checked(found_url), _checked_key(found_key))


def config_file(env: Mapping[str, str] = os.environ) -> Path:
    """Where profiles are kept."""
    home = env.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "thaw" / "config.toml"


def _profile(name: str | None, env: Mapping[str, str]) -> dict[str, str]:
    path = config_file(env)
    profiles = _read_toml(path)
    if name is not None and name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise UsageError(f"{path} has no profile {name!r}; it has: {known}")
    found = profiles.get(name or DEFAULT_PROFILE, {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError(f"{path}: [{name or DEFAULT_PROFILE}] must be a table of texts")
    if unknown := sorted(found.keys() - _FIELDS):
        raise UsageError(f"{path}: unknown {', '.join(unknown)}; a profile has {', '.join(sorted(_FIELDS))}")
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _stored_key(profile: Mapping[str, str]) -> str | None:
    if "key_file" in profile:
        return _read_key(Path(profile["key_file"]).expanduser())
    return profile.get("api_key")


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key file {path} cannot be read: {error}") from error
    if not key:
        raise UsageError(f"the key file {path} is empty")
    return key


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the API key has characters that no key has; copy it again")
    return key


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"the server address {url!r} must begin with http:// or https://")
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"the server address {url!r} is none: {error}") from error
    if not found.host:
        raise UsageError(f"the server address {url!r} names no host, as in http://127.0.0.1:8000")
    without_slash = url.rstrip("/")
    if without_slash.endswith("/v1"):
        raise UsageError(f"the server address {url!r} is without /v1, as {without_slash.removesuffix('/v1')}")
    return without_slash
