"""Whether the kernel has killed for want of memory: its own count, of this cgroup or else of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def memory_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """How many processes the kernel has killed for memory so far; None where it cannot be read."""
    for path in _counts(proc, cgroups):
        try:
            text = path.read_text()
        except OSError:
            continue
        for name, _, value in (line.partition(" ") for line in text.splitlines()):
            if name == "oom_kill":
                return int(value)
    return None


def _counts(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Where the count may stand, the nearest to this process first."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for number, controllers, path in (line.split(":", 2) for line in lines):
        below = path.lstrip("/")
        if number == "0" and not controllers:
            yield cgroups / below / "memory.events"
        if "memory" in controllers.split(","):
            yield cgroups / "memory" / below / "memory.oom_control"
            # In a container the path is the host's, and its own cgroup is mounted as the root.
            yield cgroups / "memory" / "memory.oom_control"
    yield proc / "vmstat"
