"""`thaw download --full`: the model made here, of its base and of what the job trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.bases import Bases, Found
from thaw.cli.output import say, size, transfer
from thaw.client import Thaw
from thaw.delta import Delta, read_delta
from thaw.errors import UsageError
from thaw.rebuilding import is_rebuilt, rebuild
from thaw.shapes import Artifact


def rebuild_model(
    thaw: Thaw, job_id: str, found: Sequence[Artifact], folder: Path, base: Path | None
) -> None:
    """The job's model in `folder`, beside what was fetched of its result, and a remark on what was spared."""
    listed = {artifact.name: artifact for artifact in found}
    if missing := [name for name in ("model.json", "trainable.safetensors") if name not in listed]:
        raise UsageError(f"{job_id} has no {' and no '.join(missing)}: only a job that succeeded has a model")
    delta = read_delta(folder)
    if delta.job_id != job_id:
        raise UsageError(f"{folder} holds the result of {delta.job_id}, not of {job_id}; download it again")
    target = folder / Path(delta.model_file).name
    if base is None and is_rebuilt(delta, target):
        say(f"{target} is here already")
        return
    used = _bring(thaw, delta) if base is None and delta.needs_file else None
    rebuild(folder, used.path if used else base)
    say(_remark(target, used))


def _bring(thaw: Thaw, delta: Delta) -> Found:
    with transfer("base") as report:
        found = Bases(thaw).get(delta.base, report)
    kept = f"fetched, and kept for the next time ({size(found.fetched)})" if found.fetched else "here already"
    say(f"{found.path}: {delta.base.words}, {kept}")
    return found


def _remark(target: Path, used: Found | None) -> str:
    whole = target.stat().st_size
    spared = whole - (used.fetched if used else 0)
    gain = f", {size(spared)} not fetched" if spared > 0 else ""
    return f"{target} ({size(whole)}): rebuilt bit for bit{gain}"
