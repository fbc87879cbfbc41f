"""What can go wrong between a program and a Thaw server."""

from __future__ import annotations


class ThawError(Exception):
    """Anything that this package raises on purpose; its text is for a person."""


class UsageError(ThawError):
    """What was asked for cannot be meant: a bad job file, a missing path, no server named."""


class ServerRefused(ThawError):
    """The server answered, and said no.

    `param` names the field of the request that is wrong, `code` is the server's short name for the trouble,
    `status` is HTTP's, `retry_after_s` how long the server asks to wait.
    """

    def __init__(
        self,
        message: str,
        param: str | None,
        code: str | None,
        status: int,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        is_named = not self.param or self.message.startswith(f"{self.param}:")
        return self.message if is_named else f"{self.param}: {self.message}"


class ServerUnreachable(ThawError):
    """No whole answer came: the server is down, the address is wrong, or the connection broke.

    `may_have_acted`: the request may have reached it, and its answer was lost.
    """

    def __init__(self, message: str, *, may_have_acted: bool = False) -> None:
        super().__init__(message)
        self.may_have_acted = may_have_acted


class DamagedDownload(ServerUnreachable):
    """The bytes that came are not those that the server lists."""
