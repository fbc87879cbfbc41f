"""How each sort of fault is done to a running stack. Each finds its target, acts, and says what it hit.

None instead of an injection: there is nothing of that sort to hit now.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
from harness.cluster import CENTRE, Cluster
from harness.gates import State
from harness.plan import HOST, LEVELS, SERVICES, Fault
from harness.targets import targets
from sqlalchemy import select

from shared.db.engine import make_engine, transaction
from shared.db.models import Allocation
from shared.domain.job import LIVE_ALLOCATION_STATES
from shared.queue import make_app, publish

Item = TypeVar("Item")
_BLOCK = b"\0" * 65_536
_DELIVERIES = 100


@dataclass(frozen=True)
class Injection:
    """What was done. `undo` ends it after `for_s` seconds; `ended` are processes that must be gone soon."""

    hit: str
    node: str | None = None
    attempt: str | None = None
    ended: tuple[psutil.Process, ...] = field(default=(), repr=False)
    for_s: float = 0.0
    undo: Callable[[], None] | None = field(default=None, repr=False)


def inject(cluster: Cluster, fault: Fault, scale: float) -> Injection | None:
    """Do it; times of the fault are multiplied by `scale`."""
    kind, seconds = fault.kind, fault.kind.for_s * scale
    if kind.what in ("kill", "stop") and kind.on in (*SERVICES, *LEVELS, HOST):
        return _signal(cluster, fault, seconds)
    if kind.what.endswith(" from"):
        return _close_gates(cluster, fault, seconds)
    return _OTHERS[kind.what, kind.on](cluster, fault, seconds)


def _signal(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    found = targets(cluster, fault.kind.on)
    busy = _busy(cluster)
    target = _pick([one for one in found if one.node in busy] or found, fault)
    if target is None:
        return None
    hit = (target.process, *target.others)
    if fault.kind.what == "kill":
        if not _send(hit, signal.SIGKILL):
            return None
        return Injection(str(target), target.node, target.attempt, ended=target.below)
    if not _send(hit, signal.SIGSTOP):
        return None
    return Injection(str(target), target.node, target.attempt, for_s=seconds, undo=lambda: _wake(hit))


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> bool:
    """Whether any of them was there to get it."""
    sent = False
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            sent = True
    return sent


def _wake(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)


def _close_gates(cluster: Cluster, fault: Fault, seconds: float) -> Injection:
    parties = (CENTRE, *cluster.nodes)
    node = None
    if " one node " in fault.kind.what:
        node = _pick(_busy(cluster) or list(cluster.nodes), fault)
        assert node is not None
        parties = (node,)
    gates = [cluster.gates[party, fault.kind.on] for party in parties]
    state = State.SHUT if fault.kind.what.startswith("cut") else State.HOLD
    for gate in gates:
        gate.set(state)

    def open_again() -> None:
        for gate in gates:
            gate.set(State.OPEN)

    return Injection(node or "every connection", node, for_s=seconds, undo=open_again)


def _flush_redis(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    client = cluster.redis.client()
    try:
        client.flushall()
    finally:
        client.close()
    return Injection("all keys")


def _kill_server(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    cluster.keeper.kill(fault.kind.on, away_s=1.0)
    return Injection("the server's first process")


def _restore_redis(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    """The append-only file as it was when the faults began, with every message of then."""
    cluster.keeper.kill("redis", away_s=1.0)
    for old in snapshot_of_redis(cluster).iterdir():
        target = cluster.redis.folder / old.name
        if old.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(old, target)
        else:
            shutil.copyfile(old, target)
    return Injection("the state at the first fault")


def snapshot_of_redis(cluster: Cluster) -> Path:
    """The folder of the copy; `keep_snapshot` makes it."""
    return cluster.folder.root / "redis-then"


def keep_snapshot(cluster: Cluster) -> None:
    """Copy what Redis would read at its start, in place of an earlier copy."""
    target = snapshot_of_redis(cluster)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in cluster.redis.folder.glob("appendonly*"):
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target / path.name)


def _restart_postgres(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    cluster.keeper.stop("postgres", away_s=seconds)
    return Injection("the server, away for a while", for_s=seconds, undo=lambda: None)


def _fill_disk(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    full = _pick([node for node in _busy(cluster) if os.path.ismount(cluster.work_dir(node))], fault)
    if full is None:
        return None
    filler = cluster.work_dir(full) / "filler"
    try:
        with filler.open("wb") as file:
            while True:
                file.write(_BLOCK)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    return Injection(f"the disk of {full}", full, for_s=seconds, undo=filler.unlink)


def _deliver_again(cluster: Cluster, fault: Fault, seconds: float) -> Injection | None:
    """One message of an allocation that is offered or runs, a hundred times, to all nodes in turn."""
    settings = cluster.settings
    engine = make_engine(cluster.postgres.url("thaw"), pool_size=1)
    try:
        with transaction(engine) as session:
            found = session.execute(
                select(Allocation.id, Allocation.dispatch_seq, Allocation.attempt_id)
                .where(Allocation.state.in_(LIVE_ALLOCATION_STATES))
                .order_by(Allocation.id)
            ).all()
    finally:
        engine.dispose()
    picked = _pick(found, fault)
    if picked is None:
        return None
    with make_app(settings.redis_url.get_secret_value()) as app:
        for number in range(_DELIVERIES):
            node = cluster.nodes[number % len(cluster.nodes)]
            publish(app, node_id=node, allocation_id=picked.id, dispatch_seq=picked.dispatch_seq)
    return Injection(f"the message of {picked.id}", attempt=picked.attempt_id)


def _busy(cluster: Cluster) -> list[str]:
    """The nodes that run an attempt now."""
    return sorted({target.node for target in targets(cluster, "launcher") if target.node})


def _pick(found: Sequence[Item], fault: Fault) -> Item | None:
    return found[int(fault.pick * len(found))] if found else None


_OTHERS: dict[tuple[str, str], Callable[[Cluster, Fault, float], Injection | None]] = {
    ("flush", "redis"): _flush_redis,
    ("kill", "redis"): _kill_server,
    ("kill", "postgres"): _kill_server,
    ("restore old", "redis"): _restore_redis,
    ("restart", "postgres"): _restart_postgres,
    ("fill disk", ""): _fill_disk,
    ("deliver 100 times", ""): _deliver_again,
}
