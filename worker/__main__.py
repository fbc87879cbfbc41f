"""python -m worker: this host's GPUs, or CPU slots, as a node. SIGTERM lets the jobs checkpoint and leave."""

from __future__ import annotations

import sys

from shared import logs
from shared.domain.errors import Conflict
from shared.queue import UnfitRedis
from shared.settings import get_settings
from worker.devices import UnfitDevices
from worker.serve import FolderInUse, serve
from worker.supervisor import run


def main() -> None:
    """Run until told to stop."""
    settings = get_settings()
    logs.configure(settings.log_level)
    try:
        sys.exit(serve(settings, run))
    except (FolderInUse, UnfitDevices, UnfitRedis, Conflict) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
