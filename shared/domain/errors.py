"""Typed errors of the domain. They carry no HTTP code: `api/errors.py` alone gives them one."""

from __future__ import annotations


class ThawError(Exception):
    """Something a person can read and act on.

    `param` names the place in the request (`freeze.rules[1]`), `code` is a stable word for programs.
    """

    default_code = "error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code


class Invalid(ThawError):
    """The request can be read, but what it asks for is not possible."""

    default_code = "invalid_value"


class NotSupportedYet(Invalid):
    """Part of the published interface that this version does not build yet."""

    default_code = "not_supported_yet"


class Unauthenticated(ThawError):
    """No key, an unknown key, or one that was revoked or has expired."""

    default_code = "invalid_api_key"


class Forbidden(ThawError):
    """The caller is known, and its role does not allow this."""

    default_code = "forbidden"


class NotFound(ThawError):
    """No such object for this caller; another team's object looks the same."""

    default_code = "not_found"


class Conflict(ThawError):
    """The object is in a state in which this cannot be done."""

    default_code = "conflict"


class TooLarge(ThawError):
    """More bytes, files or pixels than the cap allows."""

    default_code = "too_large"


class Unavailable(ThawError):
    """A part that is needed (the database, the store) cannot be reached just now."""

    default_code = "unavailable"


class IllegalTransition(ThawError):
    """A change of state that the table of transitions does not know: a bug, never a user's fault."""

    default_code = "illegal_transition"
