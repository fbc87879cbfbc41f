"""What the row of a new job of either kind takes from who asked, what was asked for, and where it starts."""

from __future__ import annotations

from typing import Any

from api.services.weights import Start
from shared.db.keys import Caller
from shared.domain.spec import AnyJobSpec
from shared.settings import Settings


def job_columns(caller: Caller, settings: Settings, spec: AnyJobSpec, start: Start) -> dict[str, Any]:
    """The columns of `Job` that both kinds fill in the same way."""
    base = start.base
    return {
        "team_id": caller.team_id,
        "created_by": caller.key_id,
        "model": spec.model,
        "base_job_id": base.job.id if base.job else None,
        "weights_file_id": start.file.id if start.file else None,
        "spec": spec.model_dump(mode="json"),
        "priority": spec.priority,
        "devices_per_node": spec.resources.devices_per_node,
        "nodes": spec.resources.nodes,
        "accelerator": spec.resources.accelerator,
        "max_attempts": settings.max_attempts,
        "wait_reason": f"waits for the model of job {base.waits_for}" if base.waits_for else None,
    }
