"""What a run leaves behind: the model, what it takes to use it, and the account of how it came about."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save

from shared.domain.events import METRICS_FILE, MODEL_CARD_FILE, MODEL_FILE, TrainerSpec
from shared.domain.spec import Keep
from shared.domain.training_result import FindUnused, ModelCard, PhaseAccount
from worker.training.delta import ModelFile, write_delta
from worker.training.files import write_json, write_whole
from worker.training.freezing import moving_buffers
from worker.training.run import Run
from worker.training.state import RunState
from worker.training.synchronised import layers_that_train

PACKAGES = ("torch", "torchvision", "safetensors", "numpy", "pillow", "simplejpeg")
RESIZE = (
    "bilinear with antialiasing to exactly height x width, RGB, divided by 255, then (value - mean) / std"
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_model(run: Run) -> None:
    """model.safetensors, trainable.safetensors and model.json."""
    out, model, spec, frozen = run.out, run.model, run.spec, run.frozen.names
    whole = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()
    }
    file = ModelFile(whole, save(whole, metadata={"format": "pt"}))
    write_whole(out / MODEL_FILE, file.content)
    trained, base = write_delta(out, model, file, spec, frozen)
    card = ModelCard(
        job_id=spec.job_id,
        task=spec.task,
        output=run.task.output_in_words,
        architecture=spec.target,
        class_names=spec.class_names,
        preprocessing=spec.preprocessing,
        resize=RESIZE,
        weights_file=MODEL_FILE,
        weights_sha256=file.sha256,
        trainable=trained,
        base=base,
        created=time.time(),
        versions=versions(),
    )
    write_json(out / MODEL_CARD_FILE, card)


def write_metrics(out: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """metrics.jsonl: a line for each epoch of the whole run, earlier attempts included."""
    write_whole(out / METRICS_FILE, "".join(json.dumps(epoch) + "\n" for epoch in history).encode())


def spec_in_result(spec: TrainerSpec) -> dict[str, Any]:
    """What ran, without the node's paths."""
    of_the_node: Any = {
        "train": {"path"},
        "validation": {"path"},
        "weights": {"path"},
        "resume_from": True,
        "freeze_plan": True,
    }
    return spec.model_dump(mode="json", exclude=of_the_node)


def find_unused_over(phases: Sequence[PhaseAccount]) -> FindUnused:
    """What was found in all phases: true where any needs it, with every name that was unused in any."""
    found = [phase.find_unused_parameters for phase in phases]
    if len(found) == 1:
        return found[0]
    reasons = (f"phase {number}: {f.reason}" for number, f in enumerate(found, start=1))
    unused = dict.fromkeys(name for f in found for name in f.unused)
    return FindUnused(value=any(f.value for f in found), reason="; ".join(reasons), unused=list(unused))


def decisions(run: Run, state: RunState, phases: Sequence[PhaseAccount]) -> dict[str, str]:
    """What was left to Thaw, and why it chose so."""
    asked = run.spec.hyperparameters
    order, epoch = run.data.order, state.kept_epoch
    left_out = len(order.indices) - order.samples_per_epoch
    moves = any(moving_buffers(run.model, run.phase_at(phase.from_epoch)) for phase in phases)
    made = {
        "precision": run.precision.reason,
        "model": f"epoch {epoch}, counted from 0: {_why_kept(state, run.spec.hyperparameters.keep)}",
        "pictures": "decoded once, kept in memory" if run.data.is_cached else "decoded anew for each epoch",
        "last_batch": f"{order.last_batch} samples; {left_out} are left out of each epoch, others every time",
        "buffers": "rank 0's lead at each step" if moves else "none moves, so the ranks exchange none",
    }
    planned = run.spec.freeze_plan.phases
    if len(planned) > len(phases):
        never = ", ".join(str(phase.from_epoch) for phase in planned[len(phases) :])
        made["schedule"] = f"stopped before the phases of at_epoch {never}: validation was no longer better"
    if asked.sync_batch_norm:
        made["sync_batch_norm"] = _how_synchronised(run, phases)
    if asked.gradient_checkpointing:
        made["gradient_checkpointing"] = _how_recomputed(run, phases)
    return made


def _how_synchronised(run: Run, phases: Sequence[PhaseAccount]) -> str:
    if run.ranks.is_alone:
        return "one rank sees the whole batch, so there is nothing to synchronise"
    layers = [len(layers_that_train(run.model, run.phase_at(phase.from_epoch).still)) for phase in phases]
    by = "torch's SyncBatchNorm" if run.ranks.device.type == "cuda" else "sums over the ranks in plain torch"
    return f"{_by_phase(layers)} BatchNorm layers, by {by}"


def _how_recomputed(run: Run, phases: Sequence[PhaseAccount]) -> str:
    n = _by_phase([len(phase.recomputed) for phase in phases])
    return f"{n} of {len(run.recomputed)} blocks run again in the backward; no gradient passes the others"


def _by_phase(numbers: Sequence[int]) -> str:
    """One number, or the numbers of several phases in their order."""
    return str(numbers[0]) if len(set(numbers)) == 1 else f"by phase {', '.join(map(str, numbers))}"


def _why_kept(state: RunState, keep: Keep) -> str:
    if state.best_epoch is None:
        return "the last one, as there is no validation data"
    if keep == "last":
        return f"the last one, as asked for; epoch {state.best_epoch} had the lowest validation loss"
    return "the lowest validation loss"
