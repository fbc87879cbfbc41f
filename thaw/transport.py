"""HTTP as the rest of the client needs it: JSON in and out, streams, failures as one of two errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx

from thaw.errors import ServerRefused, ServerUnreachable

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# Uploads of gigabytes are checked by the server before it answers.
_UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)


class Transport:
    """One server and one key. Raises ServerRefused and ServerUnreachable, and nothing else of HTTP."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {api_key}"}, timeout=_TIMEOUT
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int | Sequence[str] | None) -> dict[str, Any]:
        """The answer to GET; parameters that are None are left out."""
        return self._json("GET", path, params={k: v for k, v in params.items() if v is not None})

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer to POST with a JSON body, or with none."""
        given = {"json": body} if body is not None else {}
        return self._json("POST", path, headers=headers, **given)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to PUT with a JSON body."""
        return self._json("PUT", path, json=body)

    def delete(self, path: str, **params: str | None) -> dict[str, Any]:
        """The answer to DELETE; parameters that are None are left out."""
        return self._json("DELETE", path, params={k: v for k, v in params.items() if v is not None})

    def upload(self, path: str, fields: Mapping[str, str], name: str, content: Any) -> dict[str, Any]:
        """POST a form with one file, which is read from `content` while it is sent."""
        files = {"file": (name, content, "application/octet-stream")}
        return self._json("POST", path, data=dict(fields), files=files, timeout=_UPLOAD_TIMEOUT)

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str] | None = None, **params: str | int | None
    ) -> Iterator[httpx.Response]:
        """The answer to GET, its body not yet read. Redirects are followed, without the key."""
        asked = {k: v for k, v in params.items() if v is not None}
        with (
            self._failures(),
            self._http.stream("GET", path, headers=headers, params=asked, follow_redirects=True) as response,
        ):
            if response.is_error:
                response.read()
                raise refusal(response)
            yield response

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        with self._failures():
            response = self._http.request(method, path, **request)
        if response.is_error:
            raise refusal(response)
        asked = f"{self.url} answered {method} {path}"
        try:
            answer = response.json(object_hook=partial(_Answer, asked=asked, status=response.status_code))
        except ValueError:
            answer = None
        if response.has_redirect_location:
            raise _of_another_server(
                f"{asked} with the way to {response.headers['Location']}", response.status_code
            )
        if not isinstance(answer, dict):
            raise _of_another_server(f"{asked} with no JSON object", response.status_code)
        return answer

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            raise ServerUnreachable(
                f"{self.url} cannot be reached: {why}", may_have_acted=not isinstance(error, _NEVER_SENT)
            ) from error
        except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise ServerUnreachable(f"{self.url} cannot be asked: {error}") from error


class _Answer(dict[str, Any]):
    """A JSON object, the whole answer or one within, that says so where it lacks what a Thaw server sends."""

    def __init__(self, fields: Mapping[str, Any], asked: str, status: int) -> None:
        super().__init__(fields)
        self._asked = asked
        self._status = status

    def __missing__(self, name: str) -> Any:
        raise _of_another_server(f"{self._asked} without {name!r}", self._status)


def _of_another_server(what: str, status: int) -> ServerRefused:
    return ServerRefused(f"{what}: is it a Thaw server?", param=None, code=None, status=status)


def refusal(response: httpx.Response) -> ServerRefused:
    """The error that a refusing answer stands for, whether or not it has Thaw's envelope."""
    asked = response.headers.get("Retry-After", "")
    retry_after_s = float(asked) if asked.isdecimal() else None
    try:
        error = json.loads(response.text)["error"]
        told = str(error["message"]), error.get("param"), error.get("code")
        return ServerRefused(*told, response.status_code, retry_after_s)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = " ".join(response.text.split())[:200]
        message = f"HTTP {response.status_code} {response.reason_phrase}" + (f": {text}" if text else "")
        return ServerRefused(message, None, None, response.status_code, retry_after_s)
