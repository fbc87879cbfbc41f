"""`thaw extract`: a feature extraction, and the data it names, to the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from thaw.cli.output import size
from thaw.cli.plan import JobFile, Set
from thaw.cli.submit import Key, send
from thaw.kinds import Kind
from thaw.shapes import Job


def extract(
    ctx: typer.Context,
    job_file: JobFile,
    set_: Set = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it is over.")] = False,
    idempotency_key: Key = None,
) -> None:
    """Run a model over a data set and save what modules put out.

    It prints the job's id, alone. input_file and weights may be paths on this machine, relative to the job
    file: what they name is uploaded first, a folder of class folders as a zip. The same bytes are sent only
    once.
    """
    send(ctx, job_file, set_ or (), Kind.FEATURE_EXTRACTION, idempotency_key, watch=watch)


def extraction_facts(job: Job) -> Iterator[tuple[str, str]]:
    """What `thaw show` says of a feature extraction beside what it says of every job."""
    raw = job.raw
    for module in raw["modules"]:
        shape = module["shape"]
        yield module["path"], "known once it runs" if shape is None else f"{shape} for each sample"
    how = raw["output"] if raw["pool"] == "none" else f"{raw['output']}, pooled: {raw['pool']}"
    yield "saved as", f"{how}, {raw['dtype']}"
    if saved := (raw.get("result") or {}).get("activations"):
        files = len(saved["files"])
        yield "activations", f"{saved['n_samples']:,} samples, {size(saved['n_bytes'])} in {files} files"
    elif raw["estimated_bytes"] is not None:
        yield "estimated", size(raw["estimated_bytes"])
    if proof := (raw.get("result") or {}).get("network_proof"):
        yield "network", "unchanged" if proof["before"] == proof["after"] else "CHANGED"
