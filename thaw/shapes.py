"""What the server's answers mean to a program. `raw` is always the whole answer, as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class File:
    """An uploaded file. `reused` says that the same bytes were there already."""

    id: str
    name: str
    bytes: int
    sha256: str
    reused: bool
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any], reused: bool = False) -> File:
        return cls(raw["id"], raw["filename"], raw["bytes"], raw.get("sha256") or "", reused, raw)


@dataclass(frozen=True)
class Job:
    """A job. `status` is what OpenAI's clients know; `phase` is the finer word."""

    id: str
    model: str
    status: str
    phase: str
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Job:
        status = raw["status"]
        return cls(raw["id"], raw["model"], status, raw.get("phase") or status, raw)

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in FINAL

    @property
    def why_failed(self) -> str:
        """The reason of a job that failed, with the hint where there is one; else nothing."""
        return "; ".join(str(self.error[part]) for part in ("message", "hint") if self.error.get(part))

    @property
    def error(self) -> Mapping[str, Any]:
        """code, message, hint, traceback, rank and attempt of a job that failed; else empty."""
        return self.raw.get("error") or {}


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. `seq` counts from 1 without a gap."""

    seq: int
    type: str
    level: str
    message: str
    created_at: float
    data: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, seq: int, raw: Mapping[str, Any]) -> Event:
        data = raw.get("data") or {}
        return cls(seq, raw["type"], raw["level"], raw["message"], raw["created_at"], data, raw)


@dataclass(frozen=True)
class Artifact:
    """A file of a job's result."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Artifact:
        return cls(raw["name"], raw["bytes"], raw["sha256"])
