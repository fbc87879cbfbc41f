"""Why a supervisor drops what it is doing, and ends the attempt."""

from __future__ import annotations

from shared.domain.job import StopReason


class Interrupted(Exception):
    """Work that must not go on."""


class LeaseLost(Interrupted):
    """The token matches no more: discard everything, write nothing."""


class AttemptEnding(Interrupted):
    """Another node of the attempt failed: kill, and end this share too."""


class StopAsked(Interrupted):
    """The job was asked to stop before its trainer ran."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(f"asked to stop: {reason}")
        self.reason = reason
