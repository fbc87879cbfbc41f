"""A rank that trains several specs one after another, in the processes of one start.

python -m torch.distributed.run ... several_runs.py specs.json OUT      specs.json: name -> TrainerSpec
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.domain.events import TrainerSpec
from worker.training.loop import train
from worker.training.ranks import joined_ranks


def main(specs: Mapping[str, TrainerSpec], out: Path) -> None:
    first = next(iter(specs.values()))
    with joined_ranks(first.device, first.world_size) as ranks:
        for name, spec in specs.items():
            (out / name).mkdir(exist_ok=True)
            train(spec, out / name, ranks)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    main({name: TrainerSpec.model_validate(spec) for name, spec in given.items()}, Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
