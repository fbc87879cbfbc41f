"""What is told of all shards together: samples.jsonl, and index.json at the very end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from shared.domain.activations import (
    FOLDER,
    INDEX_FILE,
    SAMPLES_FILE,
    ActivationIndex,
    ActivationsWanted,
    ModuleActivations,
    SampleLine,
    ShardEntry,
    StoredFile,
)
from worker.training.extraction_plan import Shard
from worker.training.extraction_shards import Names, describe_file
from worker.training.files import write_json


def write_index(
    out: Path,
    wanted: ActivationsWanted,
    layout: Mapping[str, ModuleActivations],
    shards: Sequence[Shard],
    files: Sequence[StoredFile],
    names: Iterable[Names],
    *,
    network: str,
    digest: str,
) -> list[StoredFile]:
    """Writes both files and says what they are. `names` are those of each shard in turn."""
    folder = out / FOLDER
    entries = _write_samples(folder / SAMPLES_FILE, shards, files, names)
    samples = describe_file(folder / SAMPLES_FILE, SAMPLES_FILE)
    index = ActivationIndex(
        output=wanted.output,
        pool=wanted.pool,
        n_samples=sum(shard.n_samples for shard in shards),
        modules=dict(layout),
        shards=entries,
        samples=samples,
        network=network,
        network_sha256=digest,
    )
    write_json(folder / INDEX_FILE, index)
    return [describe_file(folder / name, f"{FOLDER}/{name}") for name in (SAMPLES_FILE, INDEX_FILE)]


def _write_samples(
    path: Path, shards: Sequence[Shard], files: Sequence[StoredFile], names: Iterable[Names]
) -> list[ShardEntry]:
    entries = []
    with path.open("w", encoding="utf-8") as lines:
        for shard, file, of_shard in zip(shards, files, names, strict=True):
            told = zip(of_shard.indices, of_shard.samples, of_shard.labels, strict=True)
            for row, (index, sample, label) in enumerate(told):
                line = SampleLine(sample_index=index, sample=sample, label=label, shard=shard.name, row=row)
                lines.write(line.model_dump_json() + "\n")
            entries.append(
                ShardEntry(
                    file=shard.name,
                    n_samples=shard.n_samples,
                    first_sample_index=of_shard.indices[0],
                    last_sample_index=of_shard.indices[-1],
                    bytes=file.bytes,
                    sha256=file.sha256,
                )
            )
    return entries
