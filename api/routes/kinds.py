"""Routes that jobs of every kind have, each under the path of its own kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter

from api.deps import job_path
from shared.domain.job_kind import JobKind

Handler = TypeVar("Handler", bound=Callable[..., Any])


def get_of_each_kind(router: APIRouter, path: str, **options: Any) -> Callable[[Handler], Handler]:
    """As `router.get`, for `path` below a job of each kind, which says whose jobs the scope sees.

    Not a prefix at inclusion: a request would know its route without it, and so not the kind.
    """
    return _of_each_kind(router.get, path, options)


def post_of_each_kind(router: APIRouter, path: str, **options: Any) -> Callable[[Handler], Handler]:
    """The same for `router.post`."""
    return _of_each_kind(router.post, path, options)


def _of_each_kind(
    route: Callable[..., Any], path: str, options: Mapping[str, Any]
) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        for kind in JobKind:
            route(f"{job_path(kind)}/{{job_id}}{path}", **options)(handler)
        return handler

    return add
