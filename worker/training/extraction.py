"""A feature extraction from top to bottom: build, preflight, run every sample through, prove, save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from shared.domain.activations import ModuleActivations, SavedActivations
from shared.domain.events import OUTCOME_FILE, RESULT_FILE, OutcomeReport
from shared.domain.extraction import ExtractionResult, ExtractorSpec
from shared.domain.job import Outcome, StopReason
from shared.domain.training_result import FrozenProof
from worker.training.datasets import open_readable
from worker.training.errors import TrainingFailed
from worker.training.extraction_pass import ExtractionPass
from worker.training.extraction_work import Source
from worker.training.files import write_json
from worker.training.freezing import named_tensors
from worker.training.loading import Batches
from worker.training.network import build_base
from worker.training.progress import Progress
from worker.training.proofs import Digests, combined, digests
from worker.training.ranks import Ranks
from worker.training.results import versions
from worker.training.time_limit import TimeLimit
from worker.training.transforms import Augmentation, Normalize


def extract(spec: ExtractorSpec, out: Path, ranks: Ranks) -> None:
    """Extracts as `spec` says and leaves the results in `out`; leaves early where stop.json asks for it."""
    with Progress(out, speaks=ranks.is_first) as progress:
        progress.enter("loading")
        model = _still_network(spec, ranks)
        before = digests(model, named_tensors(model))
        data, skipped = _open_data(spec, ranks, progress)
        work = _pass(spec, model, data, out, ranks, progress)

        progress.enter("preflight")
        layout = work.preflight()
        _say_what_is_saved(layout, progress)

        progress.enter("extracting")
        network = spec.network.name
        limit = TimeLimit(
            spec.max_duration_s, spec.spent_s or 0.0, out, ran_before_s=sum(progress.seconds.values())
        )
        saved = work.run(layout, network, combined(before), limit)
        if isinstance(saved, StopReason):
            progress.say(f"stopped: {saved}")
            _end(out, ranks, OutcomeReport(outcome=Outcome.STOPPED, reason=saved))
            return

        progress.enter("saving")
        proof = _prove_unchanged(model, before)
        progress.count_time()
        if ranks.is_first:
            write_json(out / RESULT_FILE, _result(spec, saved, proof, skipped, work, progress))
        _end(out, ranks, OutcomeReport(outcome=Outcome.SUCCEEDED))
        progress.say(f"done: {saved.n_samples} samples, {saved.n_bytes:,} bytes in {len(saved.files)} files")


def _still_network(spec: ExtractorSpec, ranks: Ranks) -> nn.Module:
    size = (spec.preprocessing.height, spec.preprocessing.width)
    model = build_base(spec.network, spec.weights, size, spec.seed)
    return model.requires_grad_(False).eval().to(ranks.device)


def _open_data(spec: ExtractorSpec, ranks: Ranks, progress: Progress) -> tuple[Source, list[str]]:
    pictures, skipped = open_readable(
        spec.data, spec.task, spec.class_names, spec.preprocessing, ranks, progress, may_cache=True
    )
    batches = Batches(pictures, Augmentation("none", spec.seed), ranks)
    source = Source(pictures, batches, pictures.readable, spec.class_names)
    return source, [picture.name for picture in skipped]


def _pass(
    spec: ExtractorSpec, model: nn.Module, data: Source, out: Path, ranks: Ranks, progress: Progress
) -> ExtractionPass:
    return ExtractionPass(
        model=model,
        wanted=spec.wanted,
        source=data,
        batch_size=spec.batch_size // spec.world_size,
        normalize=Normalize(spec.preprocessing, ranks.device),
        out=out,
        ranks=ranks,
        progress=progress,
        finished=spec.finished,
    )


def _say_what_is_saved(layout: Mapping[str, ModuleActivations], progress: Progress) -> None:
    for path, saved in layout.items():
        mean = f", the mean over dimensions {saved.mean_over}" if saved.mean_over else ""
        progress.say(
            f"{path} ({saved.class_name}): {saved.output_shape} -> {saved.shape} {saved.dtype}{mean}"
        )


def _prove_unchanged(model: nn.Module, before: Digests) -> FrozenProof:
    """On every rank: each has run a network of its own. Raises TrainingFailed if it moved."""
    after = digests(model, before)
    moved = [name for name, value in before.items() if after[name] != value]
    if moved:
        raise TrainingFailed(
            f"{len(moved)} tensors of the network moved while it was only run, first {', '.join(moved[:5])}",
            code="network_moved",
            hint="the model changes them itself, in forward, though it is in eval mode",
        )
    n_parameters = sum(1 for _ in model.parameters())
    return FrozenProof(
        before=combined(before),
        after=combined(after),
        unchanged=True,
        n_parameters=n_parameters,
        n_buffers=len(before) - n_parameters,
    )


def _result(
    spec: ExtractorSpec,
    saved: SavedActivations,
    proof: FrozenProof,
    skipped: list[str],
    work: ExtractionPass,
    progress: Progress,
) -> ExtractionResult:
    return ExtractionResult(
        job_id=spec.job_id,
        spec=_spec_in_result(spec),
        weights_sha256=spec.weights.sha256 if spec.weights else None,
        network_proof=proof,
        activations=saved,
        skipped_images=skipped,
        seconds={phase: round(seconds, 3) for phase, seconds in progress.seconds.items()},
        versions=versions(),
        decisions={
            "batch": f"{work.batch_size} samples on each of {spec.world_size} ranks",
            "precision": "fp32: activations are saved as the network computes them without autocast",
            "resumed": f"{len(spec.finished)} shards are an earlier try's" if spec.finished else "not",
        },
    )


def _spec_in_result(spec: ExtractorSpec) -> dict[str, Any]:
    """What ran, without the node's paths."""
    of_the_node: Any = {"data": {"path"}, "weights": {"path"}, "finished": True}
    return spec.model_dump(mode="json", exclude=of_the_node)


def _end(out: Path, ranks: Ranks, report: OutcomeReport) -> None:
    if ranks.is_first:
        write_json(out / OUTCOME_FILE, report)
