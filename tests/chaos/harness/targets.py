"""Processes of the stack by their level, as the kernel's process table shows them now."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
from harness.cluster import SCHEDULERS, Cluster

_ATTEMPT = re.compile(r"/runs/(attempt-[0-9a-z]+)")


@dataclass(frozen=True)
class Target:
    """A process, and the node and attempt that it belongs to, where it belongs to any.

    A "worker" is a node's Celery with its whole pool, a "host" all that runs on a node; the `others` are hit
    together with `process`. `below` are those that must end with it: all that it has started, and what
    belongs to the same attempt.
    """

    level: str
    process: psutil.Process
    node: str | None = None
    attempt: str | None = None
    below: tuple[psutil.Process, ...] = field(default=(), repr=False)
    others: tuple[psutil.Process, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        where = " ".join(filter(None, [self.node, self.attempt]))
        return f"{self.level} {self.process.pid}" + (f" ({where})" if where else "")


def targets(cluster: Cluster, level: str) -> list[Target]:
    """All processes of a level that live now, in a stable order."""
    if level == "api":
        return list(_part(cluster, "api", level))
    if level == "scheduler":
        return [target for name in SCHEDULERS for target in _part(cluster, name, level)]
    return [target for node in cluster.nodes for target in _on_node(cluster, node) if target.level == level]


def trainers(cluster: Cluster) -> list[psutil.Process]:
    """Every living process that has this run's marker: agents, ranks, and what loads their data."""
    return [process for process in psutil.process_iter() if _is_marked(process, cluster.marker)]


def _part(cluster: Cluster, name: str, level: str) -> Iterator[Target]:
    pid = cluster.keeper.pid(name)
    if pid is not None:
        yield Target(level, psutil.Process(pid))


def _on_node(cluster: Cluster, node: str) -> Iterator[Target]:
    pid = cluster.pid_of_node(node)
    if pid is None:
        return
    celery = psutil.Process(pid)
    pools, below = _children(celery), tuple(_descendants(celery))
    yield Target("celery", celery, node, below=below)
    yield Target("worker", celery, node, below=below, others=tuple(pools))
    yield Target("host", celery, node, below=below, others=below)
    for pool in pools:
        launchers = _children(pool, lambda words: "worker.launcher" in words)
        if not launchers:
            continue  # it waits for work
        yield from _of_attempt(node, pool, launchers[0])


def _of_attempt(node: str, pool: psutil.Process, launcher: psutil.Process) -> Iterator[Target]:
    found = _ATTEMPT.search(" ".join(_words(launcher)))
    attempt = found[1] if found else None
    below = (launcher, *_descendants(launcher))
    yield Target("pool", pool, node, attempt, below)
    yield Target("launcher", launcher, node, attempt, below)
    for agent in _children(launcher):
        yield Target("agent", agent, node, attempt, below)
        for rank in _children(agent, lambda words: "worker.training" in words):
            yield Target("rank", rank, node, attempt, below)
            for loader in _children(rank):
                yield Target("loader", loader, node, attempt, below)


def _children(parent: psutil.Process, wanted: Callable[[list[str]], bool] = bool) -> list[psutil.Process]:
    try:
        found = parent.children()
    except psutil.NoSuchProcess:
        return []
    return sorted((child for child in found if wanted(_words(child))), key=lambda child: child.pid)


def _descendants(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def _is_marked(process: psutil.Process, marker: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("CHAOS_MARKER") == marker
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
