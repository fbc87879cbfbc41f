"""One rank from start to end: read the spec, join the ranks, train or extract, and say why if that fails."""

from __future__ import annotations

import os
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from shared.domain.extraction import RUN_SPEC, AnyRunSpec, ExtractorSpec
from worker.training.errors import report_error
from worker.training.extraction import extract
from worker.training.loop import train
from worker.training.ranks import joined_ranks


@record
def run_rank(spec_file: Path, out: Path) -> None:
    """Raises what went wrong, after error-rank<n>.json says it."""
    out.mkdir(parents=True, exist_ok=True)
    batch = "the batch size asked for"
    try:
        spec = RUN_SPEC.validate_json(spec_file.read_bytes())
        batch = _batch_in_words(spec)
        with joined_ranks(spec.device, spec.world_size) as ranks:
            if isinstance(spec, ExtractorSpec):
                extract(spec, out, ranks)
            else:
                train(spec, out, ranks)
    except Exception as error:
        report_error(error, int(os.environ.get("RANK", "0")), batch, out)
        raise


def _batch_in_words(spec: AnyRunSpec) -> str:
    size = spec.batch_size if isinstance(spec, ExtractorSpec) else spec.hyperparameters.batch_size
    picture = f"{spec.preprocessing.height}x{spec.preprocessing.width}"
    share = f"{size // spec.world_size} on each of {spec.world_size} ranks"
    return f"batch_size {size} ({share}) of {picture} pictures"
