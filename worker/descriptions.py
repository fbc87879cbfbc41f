"""Registered models become known to the API: described once, by a process that has torch."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import structlog
from sqlalchemy import Engine

from shared.db import catalog_rows
from shared.db.steps import run_step
from shared.settings import Settings
from worker.launch import description_command, description_environment
from worker.registered import registered_models

_LIMIT_S = 300.0
_START_LIMIT_S = 120.0


def share_descriptions(engine: Engine, settings: Settings, limit_s: float = _LIMIT_S) -> None:
    """Describe those models of this node that no node has described yet, each within `limit_s` seconds.

    Raises DBAPIError.
    """
    models = registered_models()
    missing = set(run_step(engine, catalog_rows.undescribed, [(model.name, model.hash) for model in models]))
    asked = {model.name: model for model in models if (model.name, model.hash) in missing}
    described = _describe(list(asked), settings, limit_s) if asked else {}
    for name, description in described.items():
        run_step(
            engine,
            catalog_rows.store_description,
            name=name,
            version=asked[name].version,
            hash=asked[name].hash,
            description=description,
        )


def _describe(names: list[str], settings: Settings, limit_s: float) -> dict[str, dict[str, Any]]:
    """What the trainer's Python tells of each model, in the environment in which trainers build them."""
    done = subprocess.run(  # noqa: S603 - our own module under our own interpreter
        description_command(names, limit_s, os.getpid(), settings.trainer_uid),
        env=description_environment(settings.trainer_env, os.environ),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_START_LIMIT_S + limit_s * len(names),
        check=False,
    )
    log = structlog.stdlib.get_logger(__name__)
    if done.returncode != 0:
        log.error("registered models could not be described", models=names, error=done.stderr[-2000:])
    found: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        description = json.loads(line)
        found[description.pop("name")] = description
    for name, description in found.items():
        if "unfinished" in description:
            log.error("a registered model was not described to the end", model=name, told=description)
    return found
