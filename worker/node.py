"""This worker as a node: it registers, is heard of, gives back what its dead left, and leaves in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import redis
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from shared.db import drains, nodes
from shared.db.nodes import Held, NodeFacts
from shared.db.steps import run_step
from shared.queue import is_reachable, node_queue
from shared.settings import Settings
from worker.devices import Devices
from worker.ears import Ears
from worker.handling import forget, is_handled, left_behind
from worker.home import home_id
from worker.machine import machine_id
from worker.registered import registered_models
from worker.slots import prepare_slot_locks, slot_lock_path, try_exclusive


class Node:
    """A new life of this node. Its methods but `ask_to_leave` raise DBAPIError while the database is away."""

    def __init__(
        self,
        settings: Settings,
        devices: Devices,
        engine: Engine,
        queue: redis.Redis,
        unhealthy: Callable[[], Mapping[int, str]] = dict,
    ) -> None:
        """`unhealthy`: slot -> why it is not fit for work just now."""
        self.incarnation = uuid4()
        self._unhealthy = unhealthy
        self._told: Mapping[int, str] | None = None
        self._settings = settings
        self._devices = devices
        self._engine = engine
        self._asked_to_leave = Event()
        self._hears: Callable[[], bool] = lambda: is_reachable(queue)
        self._log = structlog.stdlib.get_logger(__name__)

    def register(self) -> None:
        """Take the node's place: earlier claims of a worker that died here are given back at once.

        Raises Conflict while another host works under this name; a lease after it, nothing runs there.
        """
        settings = self._settings
        prepare_slot_locks(settings.work_dir, self._devices.n_slots)
        taken_for_s = settings.scaled(settings.lease_s)
        run_step(self._engine, nodes.register, self._facts(), self.incarnation, taken_for_s=taken_for_s)
        self._give_back()
        self._forget_the_ended()

    def keep_beating(self, ears: Ears) -> None:
        """Beat in a thread of its own until the process ends; `ears` say whether offers reach it."""
        self._hears = ears.hear
        Thread(target=self._run, name="heartbeat", daemon=True).start()

    def ask_to_leave(self, **_: Any) -> None:
        """The worker is stopping: let the running jobs checkpoint and go. Safe in a signal handler."""
        self._asked_to_leave.set()

    def beat(self) -> None:
        """Be heard of, and give back what nobody here uses any more."""
        hears = self._asked_to_leave.is_set() or self._hears()
        if not run_step(
            self._engine, nodes.beat, self._settings.node_name, self.incarnation, reachable=hears
        ):
            self._log.error("another worker runs under this node's name", node=self._settings.node_name)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if self._asked_to_leave.is_set():
            self._leave()
        self._tell_health()
        self._give_back()

    def _run(self) -> None:
        pause_s = self._settings.scaled(self._settings.node_heartbeat_s)
        while True:
            try:
                self.beat()
            except DBAPIError as error:
                self._log.error("the database failed", error=str(error.orig))
            except Exception:
                # As when the disk is full: without this thread a node that works would be taken for lost.
                self._log.exception("a beat failed")
            if self._asked_to_leave.is_set():
                time.sleep(pause_s)
            else:
                self._asked_to_leave.wait(pause_s)

    def _leave(self) -> None:
        """With each beat: a node that was silent for a lease was lost, and its next beat made it ready."""
        node_id = self._settings.node_name
        reason = f"The node {node_id} is leaving."
        for token in run_step(self._engine, drains.start_drain, node_id, self.incarnation):
            run_step(self._engine, drains.leave, token, node_id=node_id, actor=node_id, reason=reason)

    def _tell_health(self) -> None:
        unhealthy = dict(self._unhealthy())
        if unhealthy != self._told:
            run_step(self._engine, nodes.tell_health, self._settings.node_name, unhealthy)
            self._told = unhealthy

    def _give_back(self) -> None:
        node_id = self._settings.node_name
        for held in run_step(self._engine, nodes.claimed_by, node_id):
            if self._is_abandoned(held) and run_step(self._engine, nodes.give_up, held, actor=node_id):
                self._log.warning("a worker process died", allocation=held.allocation_id)
                forget(self._settings.work_dir, held.allocation_id)
        dirty = run_step(self._engine, nodes.dirty_slots, node_id)
        clean = [slot for slot in dirty if self._is_unused(slot)]
        if clean:
            run_step(self._engine, nodes.clean_slots, node_id, clean, n_slots=self._devices.n_slots)

    def _forget_the_ended(self) -> None:
        """Locks of allocations that ended while no worker ran here, as when a lease ran out."""
        held = run_step(self._engine, nodes.claimed_by, self._settings.node_name)
        for allocation_id in left_behind(self._settings.work_dir) - {one.allocation_id for one in held}:
            forget(self._settings.work_dir, allocation_id)

    def _is_abandoned(self, held: Held) -> bool:
        """Claimed, but handled by no process, with none left on its slots."""
        if is_handled(self._settings.work_dir, held.allocation_id):
            return False
        return all(self._is_unused(slot) for slot in held.slots)

    def _is_unused(self, slot: int) -> bool:
        return try_exclusive(slot_lock_path(self._settings.work_dir, slot))

    def _facts(self) -> NodeFacts:
        return NodeFacts(
            id=self._settings.node_name,
            queue=node_queue(self._settings.node_name).name,
            advertise_host=self._settings.advertise_host,
            port_base=self._settings.port_base,
            accelerator=self._devices.accelerator,
            memory_bytes=self._devices.memory_bytes,
            n_slots=self._devices.n_slots,
            models=tuple((model.name, model.hash) for model in registered_models()),
            home=home_id(self._settings.work_dir),
            machine=machine_id(),
            unhealthy=dict(self._unhealthy()),
        )
