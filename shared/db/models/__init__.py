"""The tables. A state column holds exactly the states of `shared/domain/job.py`, by a constraint."""

from shared.db.models.jobs import Allocation, Attempt, File, IdempotencyKey, Job
from shared.db.models.nodes import NodeRow, RegisteredModel, Slot
from shared.db.models.outcomes import Artifact, Checkpoint, Event, Metric
from shared.db.models.teams import ApiKey, AuditEntry, Team, TeamLimit, TeamQuota

__all__ = [
    "Allocation",
    "ApiKey",
    "Artifact",
    "Attempt",
    "AuditEntry",
    "Checkpoint",
    "Event",
    "File",
    "IdempotencyKey",
    "Job",
    "Metric",
    "NodeRow",
    "RegisteredModel",
    "Slot",
    "Team",
    "TeamLimit",
    "TeamQuota",
]
