"""Which GPUs are fit for work: what NVML tells of each, looked at every so often.

An unhealthy GPU is given no new job; one that runs there is left alone and ends by its own error, if it does.
What NVML no longer tells has healed, as after a reset. An XID is told once, when it happens: it stands until
the worker starts again, which whoever resets a GPU has to have stopped anyway.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from threading import Thread

import structlog

from worker.nvml import Look, Nvml

# Errors of a program on a GPU, as NVIDIA's device plugin for Kubernetes leaves them out too: graphics engine
# exception, memory page fault, stopped processing, preemptive cleanup, video processor, context switch.
_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
STUCK_AFTER_S = 60.0
_STUCK = f"the driver has not answered for {STUCK_AFTER_S:.0f} s"


def ailment(look: Look, xids: Collection[int]) -> str | None:
    """Why the GPU is not fit for work, None if it is; `xids` are those of the worker's life so far."""
    if look.lost is not None:
        return f"it does not answer: {look.lost}"
    critical = sorted(set(xids) - _OF_PROGRAMS)
    complaints = [
        (look.wants, f"the driver asks for {look.wants}"),
        (
            look.uncorrected_errors,
            f"{look.uncorrected_errors} errors of its memory were not corrected since its last reset",
        ),
        (look.remapping_pending, "rows of its memory wait to be remapped by a reset"),
        (look.remapping_failed, "a row of its memory could not be remapped"),
        (look.retirement_pending, "pages of its memory wait to be retired by a reset"),
        (critical, f"critical errors since the worker started: XID {', '.join(map(str, critical))}"),
    ]
    return "; ".join(words for is_so, words in complaints if is_so) or None


class GpuWatch:
    """Looks at the GPUs of the slots, `uuids`, in a thread of its own, as a driver may hang."""

    def __init__(
        self, nvml: Nvml, uuids: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nvml = nvml
        self._uuids = uuids
        self._clock = clock
        self._xids: defaultdict[str, set[int]] = defaultdict(set)
        self._looks_since: float | None = None
        self._found: dict[int, str] = {}
        self._log = structlog.stdlib.get_logger(__name__)

    def keep_looking(self, pause_s: float) -> None:
        """Now, and until the process ends; where there are no GPUs, not at all."""
        if self._uuids:
            self.look()
            Thread(target=self._run, args=(pause_s,), name="gpu-watch", daemon=True).start()

    def unhealthy(self) -> dict[int, str]:
        """Slot -> why its GPU is not fit for work, as of the last look."""
        since = self._looks_since
        if since is not None and self._clock() - since > STUCK_AFTER_S:
            return dict.fromkeys(range(len(self._uuids)), _STUCK)
        return self._found

    def look(self) -> None:
        """Look at each of them now."""
        self._looks_since = self._clock()
        found = {}
        for slot, uuid in enumerate(self._uuids):
            look = self._nvml.look(uuid)
            self._xids[uuid].update(look.xids)
            reason = ailment(look, self._xids[uuid])
            if reason is not None:
                found[slot] = f"{reason} ({uuid})"
        self._tell(found)
        self._found = found
        self._looks_since = None

    def _tell(self, found: dict[int, str]) -> None:
        for slot, uuid in enumerate(self._uuids):
            reason, before = found.get(slot), self._found.get(slot)
            if reason is not None and reason != before:
                self._log.error("gpu_unhealthy", slot=slot, reason=reason)
            elif reason is None and before is not None:
                self._log.warning("gpu_healthy_again", slot=slot, gpu=uuid)

    def _run(self, pause_s: float) -> None:
        while True:
            time.sleep(pause_s)
            try:
                self.look()
            except Exception:
                # A thread that ended would leave the last answer standing for good.
                self._log.exception("a look at the GPUs failed")
