"""What a run reads, brought to the node's disk and checked; and spec.json, which says where it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from shared.artifacts import ArtifactStore
from shared.db.work import InputFile, Work
from shared.domain.activations import ActivationsWanted
from shared.domain.archive import Caps
from shared.domain.data_set import ArchiveFormat
from shared.domain.device import Device
from shared.domain.errors import Invalid
from shared.domain.events import DataSource, ManifestEntry, TrainerSpec, WeightsFile
from shared.domain.extraction import AnyRunSpec, ExtractorSpec, ResolvedExtraction
from shared.domain.resolved import (
    JobWeights,
    NoWeights,
    PublishedWeights,
    ResolvedJob,
    UploadedWeights,
    Weights,
)
from worker.cache import Cache
from worker.published import fetch_published
from worker.resume import Resuming, fetch_checkpoint, fetch_file
from worker.unpack import unpack


@dataclass(frozen=True)
class Inputs:
    """Brings one attempt's inputs here. `interrupted` is called between pieces; what it raises passes on."""

    work: Work
    store: ArtifactStore
    cache: Cache
    caps: Caps
    weights_dir: Path | None
    interrupted: Callable[[], None]
    max_extraction_bytes: int

    def fetch(self, run: Path, device: Device, resuming: Resuming) -> AnyRunSpec:
        """Fetch everything: a checkpoint below `run`, of which `resuming` is told, the rest into the cache.

        Raises the store's errors, Unavailable for weights that cannot be had, Invalid for a file that is not
        what the job needs.
        """
        resolved = self.work.resolved
        if isinstance(resolved, ResolvedExtraction):
            return self._extractor(resolved, device)
        return self._trainer(resolved, run, device, resuming)

    def _trainer(self, resolved: ResolvedJob, run: Path, device: Device, resuming: Resuming) -> TrainerSpec:
        work = self.work
        assert work.freeze_plan is not None, "whoever trains has one"
        resume_from = fetch_checkpoint(
            self.store, work.checkpoints, run / "resume", resuming, self.interrupted
        )
        return TrainerSpec(
            job_id=work.job_id,
            attempt_id=work.attempt_id,
            attempt=work.attempt_number,
            task=resolved.task,
            base=resolved.base,
            target=resolved.target,
            replace_head=resolved.replace_head,
            weights=self._weights(),
            train=self._data(work.training),
            validation=self._data(work.validation) if work.validation else None,
            validation_fraction=resolved.validation_fraction,
            class_names=resolved.class_names,
            freeze=resolved.freeze,
            freeze_plan=work.freeze_plan,
            hyperparameters=resolved.hyperparameters,
            preprocessing=resolved.preprocessing,
            device=device,
            world_size=work.nodes * work.devices_per_node,
            seed=resolved.seed,
            resume_from=str(resume_from) if resume_from else None,
            max_duration_s=resolved.max_duration_s,
            spent_s=work.spent_s,
            capture=self._capture(resolved),
            changes=list(work.changes),
        )

    def _capture(self, resolved: ResolvedJob) -> ActivationsWanted | None:
        if not resolved.capture:
            return None
        return ActivationsWanted(modules=resolved.capture, max_bytes=self.max_extraction_bytes)

    def _extractor(self, resolved: ResolvedExtraction, device: Device) -> ExtractorSpec:
        work = self.work
        return ExtractorSpec(
            job_id=work.job_id,
            attempt_id=work.attempt_id,
            attempt=work.attempt_number,
            network=resolved.target,
            weights=self._weights(),
            data=self._data(work.training),
            task=resolved.task,
            class_names=resolved.class_names,
            wanted=resolved.wanted,
            batch_size=resolved.batch_size,
            preprocessing=resolved.preprocessing,
            device=device,
            world_size=work.nodes * work.devices_per_node,
            seed=resolved.seed,
            finished=list(work.shards),
            max_duration_s=resolved.max_duration_s,
            spent_s=work.spent_s,
        )

    def _data(self, file: InputFile) -> DataSource:
        name = f"{file.filename} ({file.id})"
        if file.format == "parquet":
            path = self._stored(file.storage_key, file.bytes, file.sha256, ".parquet")
            columns = {name: str(file.details[name]) for name in ("image_column", "label_column")}
            return DataSource(path=str(path), name=name, format="parquet", **columns)
        if file.format not in get_args(ArchiveFormat):
            raise Invalid(f"the file {file.id} holds {file.format}, which is no data set")
        return DataSource(path=str(self._folder(file)), name=name, format=cast(ArchiveFormat, file.format))

    def _folder(self, file: InputFile) -> Path:
        def fill(target: Path) -> None:
            archive = self._stored(file.storage_key, file.bytes, file.sha256, ".zip")
            unpack(archive, target, self.caps, self.interrupted)

        return self.cache.get(f"{file.sha256}.folder", fill)

    def _weights(self) -> WeightsFile | None:
        match self.work.resolved.weights:
            case NoWeights():
                return None
            case PublishedWeights() as published:
                return self._published(published)
            case UploadedWeights() as uploaded:
                assert self.work.weights is not None
                file = self.work.weights
                return self._safetensors(file.storage_key, file.bytes, file.sha256, uploaded)
            case JobWeights() as made:
                assert self.work.base_model is not None
                model = self.work.base_model
                return self._safetensors(model.storage_key, model.bytes, model.sha256, made)

    def _safetensors(self, key: str, size: int, sha256: str, source: Weights) -> WeightsFile:
        path = self._stored(key, size, sha256, ".safetensors")
        return WeightsFile(path=str(path), format="safetensors", sha256=sha256, source=source)

    def _published(self, weights: PublishedWeights) -> WeightsFile:
        def fill(target: Path) -> None:
            fetch_published(weights, target, weights_dir=self.weights_dir, interrupted=self.interrupted)

        path = self.cache.get(f"{weights.sha256.lower()}-{Path(weights.file_name).name}", fill)
        return WeightsFile(path=str(path), format="torch", sha256=weights.sha256, source=weights)

    def _stored(self, key: str, size: int, sha256: str, suffix: str) -> Path:
        def fill(target: Path) -> None:
            expected = ManifestEntry(name=key, bytes=size, sha256=sha256)
            fetch_file(self.store, key, target, expected, self.interrupted)

        return self.cache.get(f"{sha256}{suffix}", fill)
