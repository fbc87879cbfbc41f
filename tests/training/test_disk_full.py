"""A disk that is full costs a run the checkpoints that do not fit, in words, and not its life."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from every_step import write_stop
from torch.optim.optimizer import register_optimizer_step_post_hook
from trainer_runs import MakeSpec, Ran, RunHere, run_in_process

import worker.training.loop
from shared.domain.events import TrainerSpec
from shared.domain.job import StopReason
from worker.training import checkpoints
from worker.training.checkpoint_folder import read_manifest, whole_ones
from worker.training.waiting_lines import WaitingLines

SETTINGS: dict[str, Any] = {"validation_fraction": 0.2, "hyperparameters": {"n_epochs": 4}}
DISK = "4m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk takes the right to mount one: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, leaving: int = 0) -> Path:
    """Leaves only so many bytes free, in whole pages."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - leaving))
    return disk / "filler"


@contextmanager
def at_steps(happenings: dict[int, Callable[[], object]]) -> Iterator[None]:
    """Does each once its optimizer step is done."""
    taken = 0

    def count(*_: Any) -> None:
        nonlocal taken
        taken += 1
        happenings.get(taken, lambda: None)()

    hook = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture
def spec(make_spec: MakeSpec) -> TrainerSpec:
    """Four epochs of five steps."""
    return make_spec(**SETTINGS)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_outlives_a_full_disk_and_says_what_it_could_not_write(
    spec: TrainerSpec, run_here: RunHere, small_disk: Path
) -> None:
    out, seen = small_disk / "run", list[list[str]]()
    happenings = {
        7: lambda: fill(small_disk),
        17: lambda: (seen.append(names_in(out / "checkpoints")), (small_disk / "filler").unlink()),
    }
    with at_steps(happenings):
        ran = run_in_process(spec, out)

    undisturbed = run_here(spec)
    assert ran.outcome.outcome == "succeeded", ran.errors
    assert (out / "model.safetensors").read_bytes() == (undisturbed.out / "model.safetensors").read_bytes()
    assert seen == [["step-000005"]], "the newest good one stayed, nothing of the others did"
    assert [line.step for line in ran.of_type("checkpoint")] == [5, 20]
    (note,) = [line for line in ran.of_type("note") if line.code == "checkpoint_not_written"]
    assert (note.level, note.data) == ("warn", {"step": 10, "last_step": 5, "reason": "disk_full"})
    assert "the run goes on (the last is of step 5)" in note.message
    assert told(ran) == told(undisturbed), "no line of progress was lost"
    assert (out / "metrics.jsonl").read_text().count("\n") == 4


def told(ran: Ran) -> list[tuple[int, float]]:
    return [(line.epoch, line.loss) for line in ran.of_type("validation")]


def test_older_checkpoints_make_room_for_the_results(
    spec: TrainerSpec, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model, fillings = worker.training.loop.write_model, list[Path]()

    def fill_and_write(run: Any) -> None:
        if not fillings:
            fillings.append(fill(small_disk))
        write_model(run)

    monkeypatch.setattr(worker.training.loop, "write_model", fill_and_write)

    ran = run_in_process(spec, small_disk / "run")

    assert ran.outcome.outcome == "succeeded", ran.errors
    left = [read_manifest(folder) for folder in whole_ones(ran.out / "checkpoints")]
    assert left[-1].step == 20
    assert [manifest.step for manifest in left[:-1] if not manifest.is_best] == []


def test_a_pause_on_a_full_disk_is_a_pause_that_tells_what_is_lost(
    spec: TrainerSpec, small_disk: Path
) -> None:
    out = small_disk / "run"
    with at_steps({7: lambda: (write_stop(out, StopReason.PAUSE), fill(small_disk, leaving=65_536))}):
        ran = run_in_process(spec, out)

    assert ran.outcome.outcome == "stopped", ran.errors
    assert ran.note("checkpoint_not_written").data["last_step"] == 5
    assert names_in(out / "checkpoints") == ["step-000005"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_whatever_keeps_a_checkpoint_from_the_disk_the_run_goes_on(
    spec: TrainerSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_durably, calls = checkpoints.write_durably, 0

    def fail_once(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 5):  # again on the second try
            path.write_bytes(content[:1])
            raise OSError(number, "it does not take it", str(path))
        write_durably(path, content)

    monkeypatch.setattr(checkpoints, "write_durably", fail_once)

    ran = run_here(spec)

    assert ran.outcome.outcome == "succeeded", ran.errors
    wanted = "disk_full" if number in (errno.ENOSPC, errno.EDQUOT) else errno.errorcode[number]
    notes = [line.data for line in ran.of_type("note") if line.code == "checkpoint_not_written"]
    assert notes[0] == {"step": 5, "last_step": None, "reason": wanted}
    assert not [name for name in names_in(ran.out / "checkpoints") if name.startswith(".")]


@pytest.mark.parametrize("ends_with_another", [True, False])
def test_lines_wait_for_room_and_keep_their_order(small_disk: Path, ends_with_another: bool) -> None:
    lines = WaitingLines(small_disk / "lines")
    lines.write(b"first\n")
    filler = fill(small_disk)
    content = [f"{number} {'x' * 3000}\n".encode() for number in range(10)]
    for line in content:
        lines.write(line)
    filler.unlink()
    if ends_with_another:
        lines.write(b"last\n")
    lines.close()
    last = b"last\n" if ends_with_another else b""
    assert (small_disk / "lines").read_bytes() == b"first\n" + b"".join(content) + last
