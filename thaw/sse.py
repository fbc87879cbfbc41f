"""Server-sent events, read from bytes as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One message of a stream. `id` is what Last-Event-ID gives back."""

    id: str | None
    event: str
    data: str


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """The whole messages in a stream; one that is cut off by the end is left out."""
    fields: dict[str, list[str]] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            yield _message(fields)
        fields = {}


def _message(fields: dict[str, list[str]]) -> Message:
    id_ = fields["id"][-1] if "id" in fields else None
    return Message(id_, fields.get("event", ["message"])[-1], "\n".join(fields["data"]))


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines ended by LF or CRLF. (httpx's own splitter also breaks at characters that data may hold.)"""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
