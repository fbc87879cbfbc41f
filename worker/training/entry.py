"""One rank from start to end: read the spec, join the ranks, train or extract, and say why if that fails."""

from __future__ import annotations

import os
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from shared.domain.extraction import RUN_SPEC, ExtractorSpec, batch_in_words
from worker.training.explaining import report_error, reserve_room_for_a_report
from worker.training.extraction import extract
from worker.training.lease_watch import LeaseWatch
from worker.training.loop import train
from worker.training.pulse import Pulse
from worker.training.ranks import joined_ranks


@record
def run_rank(spec_file: Path, out: Path) -> None:
    """Raises what went wrong, after error-rank<n>.json says it."""
    out.mkdir(parents=True, exist_ok=True)
    rank, batch = int(os.environ.get("RANK", "0")), "the batch size asked for"
    try:
        reserve_room_for_a_report(rank, out)
        spec = RUN_SPEC.validate_json(spec_file.read_bytes())
        batch = batch_in_words(spec)
        pulse, lease = Pulse.of_rank(rank, out), LeaseWatch.of_run(out, os.environ)
        with joined_ranks(spec.device, spec.world_size, pulse, lease) as ranks:
            if isinstance(spec, ExtractorSpec):
                extract(spec, out, ranks)
            else:
                train(spec, out, ranks)
    except Exception as error:
        report_error(error, rank, batch, out)
        raise
