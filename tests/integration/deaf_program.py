"""The worker of node_program.py, hard of hearing in its first life as THAW's test asks for.

A file `deaf` in the work folder says how. "to kombu": kombu's own check of the connection is off. "for good":
the consumer never asks for messages, however often it connects; the next life finds no such file.
"""

from __future__ import annotations

import sys

from kombu.transport.redis import Channel, MultiChannelPoller
from node_program import stand_in

from shared import logs
from shared.settings import Settings
from worker import ears
from worker.serve import serve


def grow_deaf(settings: Settings) -> None:
    """Break what the file asks for, and remove it."""
    wish = settings.work_dir / "deaf"
    if not wish.exists():
        return
    MultiChannelPoller.maybe_check_brpop_health = lambda self: None
    if wish.read_text() == "for good":
        Channel._brpop_start = lambda self, timeout=None: None
        ears._RECONNECT_S = 1.0  # this one's connections are made at once
    wish.unlink()


if __name__ == "__main__":
    logs.configure("INFO")
    settings = Settings()
    grow_deaf(settings)
    sys.exit(serve(settings, stand_in))
