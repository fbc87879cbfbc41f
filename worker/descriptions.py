"""Registered models become known to the API: described once, by a process that has torch."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog
from sqlalchemy import Engine

from shared.db import nodes
from shared.db.steps import run_step
from worker.registered import registered_models

_DESCRIBE = [sys.executable, "-m", "worker.training.describe", "registered"]
_DESCRIBE_LIMIT_S = 300.0


def share_descriptions(engine: Engine) -> None:
    """Describe those models of this node that no node has described yet. Raises DBAPIError."""
    models = [(model.name, model.hash) for model in registered_models()]
    missing = run_step(engine, nodes.undescribed, models)
    if not missing:
        return
    done = subprocess.run(  # noqa: S603 - our own words
        _DESCRIBE, capture_output=True, text=True, timeout=_DESCRIBE_LIMIT_S, check=False
    )
    if done.returncode != 0:
        log = structlog.stdlib.get_logger(__name__)
        log.error("registered models could not be described", models=missing, error=done.stderr[-2000:])
        return
    for model in json.loads(done.stdout)["models"]:
        run_step(
            engine,
            nodes.store_description,
            name=model.pop("name"),
            version=model.pop("version"),
            hash=model.pop("hash"),
            description=model,
        )
