"""A rank of the engine that drops no checkpoint, and notes how long each DistributedDataParallel lives.

It runs as `python -m worker.training` does, and leaves OUT/earlier-rank<n>.json: for each DDP that was made,
how many of the earlier ones and of their reducers were alive.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import weakref
from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from worker.training import checkpoint_folder, stepping
from worker.training.entry import run_rank

made: list[weakref.ref[Any]] = []
alive: list[int] = []


class Watched(DistributedDataParallel):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        alive.append(sum(reference() is not None for reference in made))
        super().__init__(*args, **kwargs)
        made.extend([weakref.ref(self), weakref.ref(self.reducer)])


if __name__ == "__main__":
    out = Path(sys.argv[2])
    checkpoint_folder.KEPT = 1000
    stepping.DistributedDataParallel = Watched
    # What a cycle of references kept alive would then be seen.
    gc.disable()
    run_rank(Path(sys.argv[1]), out)
    (out / f"earlier-rank{os.environ['RANK']}.json").write_text(json.dumps(alive))
    sys.stdout.flush()
    os._exit(0)
