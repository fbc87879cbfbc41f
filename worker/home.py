"""The id of this node's work folder, by which it is told from another host that took the same name."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

from worker.run_folder import write_whole

_FILE = "home-id"


def home_id(work_dir: Path) -> UUID:
    """The folder's id, the same for all workers that ever use it; made on the first call."""
    path = work_dir / _FILE
    if not path.exists():
        work_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, str(uuid4()))
    return UUID(path.read_text(encoding="utf-8"))
