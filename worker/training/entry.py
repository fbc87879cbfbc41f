"""One rank from its start to its end: read the spec, join the ranks, train, and say why if that fails."""

from __future__ import annotations

import os
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from shared.domain.events import TrainerSpec
from worker.training.errors import report_error
from worker.training.loop import train
from worker.training.ranks import joined_ranks


@record
def run_rank(spec_file: Path, out: Path) -> None:
    """Raises what went wrong, after error-rank<n>.json says it."""
    out.mkdir(parents=True, exist_ok=True)
    batch = "the batch size asked for"
    try:
        spec = TrainerSpec.model_validate_json(spec_file.read_bytes())
        batch = _batch_in_words(spec)
        with joined_ranks(spec.device, spec.world_size) as ranks:
            train(spec, out, ranks)
    except Exception as error:
        report_error(error, int(os.environ.get("RANK", "0")), batch, out)
        raise


def _batch_in_words(spec: TrainerSpec) -> str:
    size = spec.hyperparameters.batch_size
    picture = f"{spec.preprocessing.height}x{spec.preprocessing.width}"
    share = f"{size // spec.world_size} on each of {spec.world_size} ranks"
    return f"batch_size {size} ({share}) of {picture} pictures"
