"""Where torch is loaded, and what a trainer is told: seen in a running stack's process table."""

from __future__ import annotations

from pathlib import Path

import psutil
from conditions import wait_for
from stacks import Stack

from thaw.client import Thaw


def test_torch_is_loaded_in_trainers_alone_and_no_credential_reaches_them(
    stack: Stack, digits_folder: Path
) -> None:
    with Thaw(stack.url, stack.api_key) as thaw:
        file = thaw.files.upload(digits_folder).id
        job = thaw.jobs.create(
            {
                "model": "custom_network",
                "training_file": file,
                "hyperparameters": {"n_epochs": 2000, "batch_size": 16},
                "preprocessing": {"image_size": 14},
            }
        )
        ranks = wait_for(lambda: [p for p in running(stack) if is_rank(p) and has_torch(p)], 60, "a rank")
        agents = {agent_of(rank) for rank in ranks}
        others = [process for process in running(stack) if not agents & {process, *process.parents()}]
        service = {word for process in others for word in process.cmdline() if word in SERVICE}

        assert [process.cmdline() for process in others if has_torch(process)] == []
        assert service == SERVICE
        for rank in ranks:
            assert [name for name in rank.environ() if name.startswith("THAW_")] == TOLD
            assert "postgresql" not in str(rank.environ())
        assert thaw.jobs.cancel(job.id).status != "succeeded"
        assert thaw.jobs.wait(job.id).status == "cancelled"


SERVICE = {"api", "scheduler", "worker", "worker.launcher", "devstack"}
TOLD = ["THAW_SLOT_LOCKS", "THAW_LAUNCHER_PID", "THAW_HOLD_AFTER_S"]


def running(stack: Stack) -> list[psutil.Process]:
    return [stack.process, *stack.process.children(recursive=True)]


def agent_of(rank: psutil.Process) -> psutil.Process:
    parent = rank.parent()
    assert parent is not None
    return parent


def is_rank(process: psutil.Process) -> bool:
    command = process.cmdline()
    return "worker.training" in command and "torch.distributed.run" not in command


def has_torch(process: psutil.Process) -> bool:
    """Whether torch's library is mapped into the process: the kernel's word, not the program's."""
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
