"""What the launcher is told (launch.json), and what it makes of it: the trainer's command and environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shared.domain.events import SPEC_FILE
from shared.domain.shape import Shape
from worker.run_clock import START_S

LAUNCH_FILE = "launch.json"
TRAINER_MODULE = "worker.training"
_AGENT_MODULE = "worker.training.agent"

_ALLOWED = frozenset(
    {"PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
)
_ALLOWED_PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "UCX_", "FI_")
# Nodes wait for one another as long as it takes, as some fetch their inputs longer than others. A node that
# is gone is known by its lease, and a trainer that hangs is ended by its launcher.
_MEETING_S = 24 * 3600
_BOUND = Path(__file__).with_name("bound.py")
_SOURCES = Path(__file__).parent.parent


class PeerAddress(Shape):
    """Where another node of the run answers, be it that nobody listens there just now."""

    node: str
    addresses: list[str] = Field(description="all that its name leads to")
    port: int


class LaunchPlan(Shape):
    """launch.json. Times are seconds."""

    nodes: int
    node_rank: int
    master_addr: str
    master_port: int
    slot_locks: list[str] = Field(description="lock files of this node's slots, in the order of local ranks")
    interface: str | None = Field(None, description="over which ranks reach other nodes; None: gloo's choice")
    node_name: str = Field("this node", description="in words for people")
    peers: list[PeerAddress] = Field(default_factory=list, description="the nodes of lower rank")
    unreachable_s: float = Field(40.0, description="a peer that answers nothing for so long ends the run")
    visible_devices: str | None = Field(None, description="CUDA_VISIBLE_DEVICES; None on CPU nodes")
    threads_per_rank: int = Field(ge=1)
    trainer_env: dict[str, str] = Field(default_factory=dict)
    trainer_uid: int | None = None
    hold_after_s: float = Field(description="a heartbeat older than this stops the ranks")
    kill_after_held_s: float = Field(description="ranks that were stopped for this long are killed")
    stall_s: float | None = Field(None, description="a run without a sign of life for this long is ended")
    start_s: float = Field(START_S, description="given at least, before the first sign of life")
    max_duration_s: float | None = Field(
        None, description="of running, over all tries of the job; None: no limit, or another node keeps it"
    )
    spent_s: float = Field(0.0, description="of it, in earlier tries")
    overtime_s: float = Field(30.0, description="beyond it; the engine stops by itself between two steps")
    batch: str | None = Field(None, description="which batch size is tried, in words")
    log_bytes: int = Field(description="cap of logs.txt; its end is kept")


def agent_command(plan: LaunchPlan, run: Path, module: str, launcher: int) -> list[str]:
    """The command of torch elastic's agent, bound to the life of the process `launcher`."""
    uid = "-" if plan.trainer_uid is None else str(plan.trainer_uid)
    return [
        *(sys.executable, "-I", "-S", str(_BOUND), str(launcher), uid),
        *(sys.executable, "-m", _AGENT_MODULE, str(run), "torch.distributed.run"),
        "--rdzv-backend=static",
        f"--rdzv-conf=timeout={_MEETING_S}",
        f"--nnodes={plan.nodes}",
        f"--node-rank={plan.node_rank}",
        f"--nproc-per-node={len(plan.slot_locks)}",
        f"--master-addr={plan.master_addr}",
        f"--master-port={plan.master_port}",
        "--max-restarts=0",
        f"--log-dir={run / 'elastic'}",
        *("-m", module, str(run / SPEC_FILE), str(run)),
    ]


def agent_environment(plan: LaunchPlan, inherited: Mapping[str, str], launcher: int) -> dict[str, str]:
    """The trainer's whole environment: an allow-list of `inherited`, the node's own, what ranks are told."""
    environment = _allowed(inherited)
    environment["OMP_NUM_THREADS"] = str(plan.threads_per_rank)
    if plan.interface is not None:
        environment.setdefault("GLOO_SOCKET_IFNAME", plan.interface)
    if plan.visible_devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = plan.visible_devices
    environment |= plan.trainer_env
    environment["THAW_SLOT_LOCKS"] = ":".join(plan.slot_locks)
    environment["THAW_LAUNCHER_PID"] = str(launcher)
    environment["THAW_HOLD_AFTER_S"] = str(plan.hold_after_s)
    if plan.trainer_uid is not None:
        environment["THAW_TRAINER_UID"] = str(plan.trainer_uid)
    return environment | _imports(plan.trainer_env)


def description_command(names: Sequence[str], limit_s: float, parent: int, uid: int | None) -> list[str]:
    """The command that describes registered models, bound to the life of the process `parent`."""
    return [
        *(sys.executable, "-I", "-S", str(_BOUND), str(parent), "-" if uid is None else str(uid)),
        *(sys.executable, "-m", "worker.training.describe", "registered"),
        *("--limit-s", str(limit_s), *names),
    ]


def description_environment(trainer_env: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """A model is described in the environment in which trainers build it."""
    return {**_allowed(inherited), **trainer_env, **_imports(trainer_env)}


def launcher_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The launcher's whole environment: nothing that its trainers may not have either."""
    return _allowed(inherited) | {"PYTHONPATH": str(_SOURCES), "PYTHONSAFEPATH": "1"}


def _imports(trainer_env: Mapping[str, str]) -> dict[str, str]:
    """Where modules come from: never from the working folder."""
    sources = [str(_SOURCES), *filter(None, [trainer_env.get("PYTHONPATH")])]
    return {"PYTHONPATH": ":".join(sources), "PYTHONSAFEPATH": "1"}


def _allowed(inherited: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in inherited.items()
        if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)
    }
