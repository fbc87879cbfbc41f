"""Every route of the API: who may call it, and what of a team's can be named in it.

A new route, parameter or field of a body belongs here; `test_api_every_route.py` fails until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi.routing import APIRoute

from shared.domain.job_kind import JobKind

PUBLIC: frozenset[str] = frozenset()
"""It asks for no key."""
EVERYBODY = frozenset({"viewer", "member", "owner", "admin"})
WRITERS = EVERYBODY - {"viewer"}
KEEPERS = frozenset({"owner", "admin"})
ADMINS = frozenset({"admin"})

PLAIN = frozenset({"limit", "order", "offset", "kind", "metadata", "purpose", "group_by", "start", "end"})
"""Parameters that name nothing."""


def routes_of(app: Any) -> list[APIRoute]:
    """Every route of ours, those that the OpenAPI document leaves out too."""
    routers = [included.original_router for included in app.routes if hasattr(included, "original_router")]
    return [route for router in (app, *routers) for route in router.routes if isinstance(route, APIRoute)]


@dataclass(frozen=True)
class Route:
    """`body` would be taken, with {"{file}"} and the like in the place of an object's id.

    `named` says of which kind is the object that a parameter or a field of the body names, and `plain` which
    other fields a body has.
    """

    who: frozenset[str]
    body: Mapping[str, Any] | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    is_form: bool = False


_JOB = {"model": "resnet18", "weights": "none", "training_file": "{file}"}
_EXTRACTION = {"model": "resnet18", "weights": "none", "input_file": "{file}", "modules": ["fc"]}
_ANY_SPEC = frozenset(
    {"max_duration_s", "metadata", "preprocessing", "priority", "resources", "seed", "suffix", "weights"}
    | {"wait_for_model"}
)
_TRAINING = _ANY_SPEC | {
    "capture",
    "freeze",
    "head",
    "hyperparameters",
    "method",
    "task",
    "validation_fraction",
}
_EXTRACTING = _ANY_SPEC | {"batch_size", "dtype", "modules", "output", "pool"}
_TRAINED_ON = {"model": "job", "training_file": "file", "validation_file": "file", "weights_file": "file"}
_CHANGES = frozenset({"hyperparameters", "max_duration_s", "priority"})


def _of_each_kind(path: str, **methods: Route) -> dict[str, Route]:
    return {
        f"{method} /v1/{kind}/jobs/{{job_id}}{path}": route
        for kind in JobKind
        for method, route in methods.items()
    }


_SEEN, _WRITTEN, _OPERATED = Route(EVERYBODY), Route(WRITERS), Route(ADMINS)

ROUTES: dict[str, Route] = {
    "get /healthz": Route(PUBLIC),
    "get /readyz": Route(PUBLIC),
    "get /metrics": Route(PUBLIC),
    "post /v1/fine_tuning/jobs": Route(WRITERS, _JOB, _TRAINED_ON, _TRAINING),
    "post /v1/fine_tuning/plan": Route(EVERYBODY, _JOB, _TRAINED_ON, _TRAINING),
    "get /v1/fine_tuning/jobs": Route(EVERYBODY, named={"after": "job"}),
    "post /v1/feature_extraction/jobs": Route(
        WRITERS, _EXTRACTION, {"model": "job", "input_file": "file", "weights_file": "file"}, _EXTRACTING
    ),
    "get /v1/feature_extraction/jobs": Route(EVERYBODY, named={"after": "extraction"}),
    **_of_each_kind("", get=_SEEN, delete=_WRITTEN),
    **_of_each_kind("/events", get=Route(EVERYBODY, plain=frozenset({"after"}))),
    **_of_each_kind("/artifacts", get=Route(EVERYBODY, plain=frozenset({"after"}))),
    **_of_each_kind("/artifacts/{name}", get=_SEEN),
    **_of_each_kind("/logs", get=_SEEN),
    **_of_each_kind("/cancel", post=_WRITTEN),
    **_of_each_kind("/pause", post=_WRITTEN),
    **_of_each_kind("/resume", post=Route(WRITERS, {}, plain=_CHANGES)),
    **_of_each_kind("/preempt", post=_OPERATED),
    "get /v1/fine_tuning/jobs/{job_id}/checkpoints": Route(EVERYBODY, plain=frozenset({"after"})),
    "get /v1/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint_id}": _SEEN,
    "get /v1/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint_id}/files/{name}": _SEEN,
    "get /v1/fine_tuning/jobs/{job_id}/metrics": Route(EVERYBODY, plain=frozenset({"after"})),
    "get /v1/queue": _SEEN,
    "post /v1/files": Route(WRITERS, is_form=True),
    "get /v1/files": Route(EVERYBODY, named={"after": "file"}),
    "get /v1/files/{file_id}": _SEEN,
    "delete /v1/files/{file_id}": _WRITTEN,
    "get /v1/files/{file_id}/content": _SEEN,
    "get /v1/models": Route(EVERYBODY, named={"after": "job"}),
    "get /v1/models/{name}": _SEEN,
    "get /v1/models/{name}/layers": _SEEN,
    "get /v1/nodes": Route(EVERYBODY, plain=frozenset({"after"})),
    "get /v1/nodes/{node_id}": _SEEN,
    "post /v1/nodes/{node_id}/drain": _OPERATED,
    "post /v1/nodes/{node_id}/undrain": _OPERATED,
    "post /v1/teams": Route(ADMINS, {"name": "another"}, plain=frozenset({"name"})),
    "get /v1/teams": Route(EVERYBODY, named={"after": "team"}),
    "get /v1/teams/{team}": _SEEN,
    "delete /v1/teams/{team}": Route(ADMINS, plain=frozenset({"confirm"})),
    "get /v1/teams/{team}/quota": _SEEN,
    "put /v1/teams/{team}/quota": Route(ADMINS, {}, plain=frozenset({"weight", "quotas", "limits"})),
    "post /v1/keys": Route(
        KEEPERS,
        {"role": "viewer", "name": "x"},
        {"team": "team"},
        frozenset({"role", "name", "expires_in_s"}),
    ),
    "get /v1/keys": Route(EVERYBODY, named={"after": "key", "team": "team"}),
    "get /v1/keys/{key_id}": _SEEN,
    "post /v1/keys/{key_id}/revoke": Route(KEEPERS),
    "get /v1/audit": Route(KEEPERS, named={"team": "team"}, plain=frozenset({"after", "key", "target"})),
    "get /v1/usage": Route(EVERYBODY, named={"team": "team"}),
}
