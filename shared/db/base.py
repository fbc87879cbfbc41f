"""How columns and constraints of every table are typed and named; states by their enumeration."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Enum, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from shared.domain.job import (
    AllocationState,
    AttemptState,
    JobState,
    NodeState,
    Outcome,
    SlotState,
    StopReason,
)
from shared.domain.job_kind import JobKind

NOW = func.clock_timestamp()


def _states(enum: type[StrEnum], name: str) -> Enum:
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own class attribute
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        str: Text,
        JobKind: _states(JobKind, "job_kind"),
        JobState: _states(JobState, "job_state"),
        AttemptState: _states(AttemptState, "attempt_state"),
        AllocationState: _states(AllocationState, "allocation_state"),
        SlotState: _states(SlotState, "slot_state"),
        NodeState: _states(NodeState, "node_state"),
        Outcome: _states(Outcome, "outcome"),
        StopReason: _states(StopReason, "stop_reason"),
    }
