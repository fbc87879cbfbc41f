"""What a plan says beside its tree: memory, where it fits, what it leaves behind, what stays fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from thaw.cli.output import size
from thaw.cli.plan_tree import epochs

_PARTS = {
    "weights_bytes": "weights",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer state",
    "autocast_bytes": "half-precision weights",
    "activations_bytes": "activations",
    "input_bytes": "input",
    "transient_bytes": "transient",
    "context_bytes": "the process itself",
    "total_bytes": "total",
}
_FITS = {True: ("fits", "bold green"), False: ("does not fit", "bold red"), None: ("not known", "yellow")}
_MOST_COLUMNS = 4
_MOST_MODULES = 6


def remarks(plan: Mapping[str, Any]) -> Iterator[RenderableType]:
    """All parts that the server gave, each in words or as a table."""
    if norms := plan.get("batch_norm"):
        yield from _normalisation(norms, plan["phases"])
    if prefix := plan.get("prefix"):
        yield _prefix(prefix)
    if memory := plan.get("memory"):
        yield ""
        yield _memory_title(memory)
        yield _memory_table(memory)
        if memory.get("reason"):
            yield f"no total: {memory['reason']}"
    if "fits" in plan:
        yield ""
        yield from _fits(plan["fits"])
    for warning in plan.get("warnings") or ():
        yield Text.assemble(("warning", "bold yellow"), f": {warning}")
    if checkpoint := plan.get("checkpoint"):
        yield ""
        yield from _sizes(checkpoint, plan["artifacts"])


def binary(n_bytes: float | None) -> str:
    """A number of bytes of memory in the binary unit that suits it; a dash where it is not known."""
    if n_bytes is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"


def _normalisation(norms: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    said = [_norms_in_words(phase) for phase in norms["phases"]]
    if not any(said):
        return
    if len(set(said)) == 1:
        yield f"batch_norm {norms['policy']}: {said[0]}"
        return
    yield f"batch_norm {norms['policy']}:"
    for number, words in enumerate(said):
        yield f"  {epochs(phases, number)}: {words}"


def _norms_in_words(phase: Mapping[str, Any]) -> str:
    """Empty where there is no such layer."""
    total = phase["n_training"] + phase["n_still"] + phase["n_exempt"]
    parts = []
    if phase["n_training"]:
        parts.append(f"{phase['n_training']} train")
    if phase["n_still"]:
        parts.append(f"{phase['n_still']} are still, so that their statistics do not move")
    if phase["n_exempt"]:
        parts.append(f"{phase['n_exempt']} are frozen, but go on counting their statistics")
    return f"of {total} normalisation layers {', '.join(parts)}" if parts else ""


def _prefix(prefix: Mapping[str, Any]) -> str:
    until = prefix["until"] or "the network's own forward"
    if not prefix["modules"]:
        return f"fixed prefix: none; {until} comes first, and what it computes changes"
    shown = ", ".join(prefix["modules"][:_MOST_MODULES])
    more = len(prefix["modules"]) - _MOST_MODULES
    modules = f"{shown} and {more} more" if more > 0 else shown
    share, result = f"{prefix['share_of_forward']:.0%}", size(prefix["output_bytes_per_sample"])
    note = f"; {prefix['note']}" if prefix.get("note") else ""
    return (
        f"fixed prefix: {modules}, up to {until}; it computes the same for a picture in every epoch, so that "
        f"its result ({result} a picture) could be computed once: {share} of what a forward puts out, "
        f"{prefix['n_parameters']:,} parameters{note}"
    )


def _memory_title(memory: Mapping[str, Any]) -> Text:
    device = {"cuda": "GPU", "cpu": "CPU process"}[memory["device"]]
    batch = memory["batch_size_per_device"]
    title = Text(f"memory on each {device}", style="bold")
    return title.append(
        f", estimated for a batch of {batch} on each in {memory['precision']}", style="not bold"
    )


def _memory_table(memory: Mapping[str, Any]) -> Table:
    """A column for each phase; of many phases, that of the one which needs the most."""
    phases = memory["phases"]
    shown = list(range(len(phases)))
    if len(phases) > _MOST_COLUMNS:
        shown = [
            max(shown, key=lambda number: phases[number]["total_bytes"] or phases[number]["optimizer_bytes"])
        ]
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=len(phases) > 1)
    table.add_column("")
    for number in shown:
        table.add_column(epochs(phases, number), justify="right")
    for field, name in _PARTS.items():
        if any(phases[number][field] != 0 for number in shown):
            values = (binary(phases[number][field]) for number in shown)
            table.add_row(f"  {name}", *values, style="bold" if field == "total_bytes" else None)
    return table


def _fits(fits: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    if not fits:
        yield "whether it fits is not known: there is no node yet"
    for fit in fits:
        word, style = _FITS[fit["fits"]]
        nodes = f"{fit['nodes']} node{'s' * (fit['nodes'] > 1)}"
        yield Text.assemble((f"{word:<13}", style), f"{fit['accelerator']} ({nodes}): ", _fit_in_words(fit))


def _fit_in_words(fit: Mapping[str, Any]) -> str:
    if fit["reason"]:
        return str(fit["reason"])
    most = f"; at most batch_size {fit['largest_batch_size']:,}"
    return f"needs {binary(fit['needed_bytes'])} of {binary(fit['memory_bytes'])} on each device{most}"


def _sizes(checkpoint: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Iterator[str]:
    best = " with the best epoch beside the last" if checkpoint["best_bytes"] else ""
    yield f"a checkpoint weighs up to {size(checkpoint['total_bytes'])}{best}"
    yield (
        f"the result: model.safetensors {size(artifacts['model_bytes'])}, "
        f"trainable.safetensors {size(artifacts['trainable_bytes'])}"
    )
