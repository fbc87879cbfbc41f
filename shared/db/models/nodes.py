"""Hosts, their slots, and the models that are installed on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.base import NOW, Base
from shared.domain.job import (
    NodeState,
    SlotState,
)


class NodeRow(Base):
    """A host with slots. `incarnation` is new with each start of its worker."""

    __tablename__ = "nodes"
    __table_args__ = (CheckConstraint("(drained_at is null) = (drained_by is null)", name="drained"),)

    id: Mapped[str] = mapped_column(primary_key=True, doc="the node's name, as the operator gave it")
    incarnation: Mapped[UUID]
    home: Mapped[UUID | None] = mapped_column(doc="of its work folder, where its dead leave their traces")
    queue: Mapped[str] = mapped_column(doc="the Celery queue that this node alone consumes")
    advertise_host: Mapped[str]
    machine: Mapped[str | None] = mapped_column(doc="whose loopback it has; see shared/domain/addresses.py")
    port_base: Mapped[int]
    accelerator: Mapped[str] = mapped_column(doc="cpu, or the device's name")
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="of one device")
    models: Mapped[list[list[str]]] = mapped_column(JSONB, doc="[name, hash] of the registered models here")
    state: Mapped[NodeState]
    suspect_until: Mapped[datetime | None] = mapped_column(doc="no sooner is it ready again")
    drained_by: Mapped[str | None] = mapped_column(doc="who took it away, as the actor of an event")
    drained_at: Mapped[datetime | None] = mapped_column(doc="no worker undoes it, only who undrains it")
    registered_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_seen_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Slot(Base):
    """A GPU, or one CPU process, of a node."""

    __tablename__ = "slots"
    __table_args__ = (CheckConstraint("(state = 'held') = (allocation_id is not null)", name="holder"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[SlotState]
    unhealthy_reason: Mapped[str | None] = mapped_column(
        doc="why its GPU is given no new job, as its node last said; whatever its state"
    )
    allocation_id: Mapped[str | None] = mapped_column(ForeignKey("allocations.id"), index=True)


class RegisteredModel(Base):
    """A model that some node has installed, described by that node."""

    __tablename__ = "registered_models"

    name: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(primary_key=True, doc="sha256 of the sources")
    version: Mapped[str]
    description: Mapped[dict[str, Any]] = mapped_column(
        doc="tree, head, image size; or the error of building it"
    )
    described_at: Mapped[datetime] = mapped_column(server_default=NOW)
