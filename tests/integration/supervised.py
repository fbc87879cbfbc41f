"""Real jobs under a real supervisor: a tiny network, real scans, two ranks, one database and store a test."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from dispatch_rows import World
from launched import SOURCES, free_port, marked
from PIL import Image
from safetensors.numpy import load
from sklearn.datasets import load_digits
from sqlalchemy import select, update

from shared.artifacts import open_store
from shared.artifacts.keys import file_key
from shared.db.engine import transaction
from shared.db.leases import Claim
from shared.db.models import Artifact, Attempt, Checkpoint, File, Metric
from shared.domain.freeze import FreezeSpec, parse_freeze, resolve
from shared.settings import Settings

PROGRAM = """
import json, sys, uuid
from shared import logs
from shared.db.leases import Claim
from shared.settings import Settings
from worker import supervisor
logs.configure("INFO")
claim = json.loads(sys.stdin.read())
supervisor.run(Claim(**{**claim, "token": uuid.UUID(claim["token"])}), Settings())
sys.exit("torch" in sys.modules)
"""


@lru_cache
def digits_zip(n: int = 100) -> bytes:
    """scikit-learn's scans as PNG files in class folders."""
    digits, packed = load_digits(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for index in range(n):
            png = io.BytesIO()
            Image.fromarray((digits.images[index] * 15.9).astype(np.uint8)).save(png, "png")
            archive.writestr(f"{digits.target[index]}/{index:04d}.png", png.getvalue())
    return packed.getvalue()


@lru_cache
def resolved_job() -> dict[str, Any]:
    """custom_network on the digits, conv1 frozen: `resolved` and `freeze_plan` of the job's row."""
    from worker.training.models import build, describe_module, head_paths  # noqa: PLC0415  # torch, only here

    model = build("custom_network", "registered")
    head = list(head_paths(model, "custom_network", "registered"))
    freeze: FreezeSpec = parse_freeze(["conv1"])
    network = {"source": "registered", "name": "custom_network", "num_classes": 10, "head": head}
    resolved = {
        "task": "classification",
        "base": network,
        "target": network,
        "replace_head": False,
        "weights": {"kind": "none"},
        "class_names": [str(n) for n in range(10)],
        "freeze": json.loads(freeze.model_dump_json(exclude_none=True)),
        "hyperparameters": {
            "n_epochs": 2,
            "batch_size": 20,
            "learning_rate": 0.001,
            "optimizer": "adamw",
            "momentum": 0.9,
            "weight_decay": 0.0,
            "lr_schedule": "constant",
            "warmup_steps": 0,
            "gradient_clip_norm": None,
            "label_smoothing": 0.0,
            "precision": "fp32",
            "early_stopping_patience": None,
        },
        "preprocessing": {
            "height": 14,
            "width": 14,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "augment": "none",
            "max_unreadable_fraction": 0.0,
        },
        "validation_fraction": None,
        "max_duration_s": None,
        "seed": 7,
    }
    plan = resolve(freeze, describe_module(model, head))
    return {"resolved": resolved, "freeze_plan": json.loads(plan.model_dump_json())}


@dataclass
class House:
    """A node with two CPU slots, its database and its store. Processes that it starts carry `marker`."""

    settings: Settings
    world: World
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)

    def job(self, *, archive: bytes | None = None, n_epochs: int = 2, nodes: int = 1, **resolved: Any) -> str:
        """A queued job of two ranks: for both slots of one node, or for one slot of each of two nodes."""
        row = resolved_job()
        hyperparameters = {**row["resolved"]["hyperparameters"], "n_epochs": n_epochs}
        return self.world.job(
            resolved={**row["resolved"], "hyperparameters": hyperparameters, **resolved},
            freeze_plan=row["freeze_plan"],
            training_file_id=self.file(digits_zip() if archive is None else archive),
            devices_per_node=2 // nodes,
            nodes=nodes,
        )

    def file(self, content: bytes) -> str:
        """An uploaded archive."""
        file_id = f"file-{uuid.uuid4().hex}"
        key = file_key("team-1", file_id)
        open_store(self.settings.store_url).put_bytes(key, content)
        with transaction(self.world.engine) as session:
            session.add(
                File(
                    id=file_id,
                    team_id="team-1",
                    filename="digits.zip",
                    purpose="fine-tune",
                    bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    storage_key=key,
                    format="image_folder",
                    details={},
                )
            )
        return file_id

    def claim(self, job_id: str) -> Claim:
        """The job on both slots, as the scheduler and the worker's task would have it."""
        offer = self.world.offer(job_id, slots=(0, 1))
        with transaction(self.world.engine) as session:
            session.execute(update(Attempt).where(Attempt.job_id == job_id).values(master_port=free_port()))
        claimed = self.world.claim(offer)
        assert claimed is not None
        return claimed

    def claim_gang(self, job_id: str, *nodes: str, **of_attempt: Any) -> list[Claim]:
        """The job on slot 0 of each of these nodes, by node rank; `of_attempt` changes where they meet."""
        offers = self.world.offer_gang(job_id, *((node, (0,)) for node in nodes))
        assert offers
        values = {"master_port": free_port(), **of_attempt}
        with transaction(self.world.engine) as session:
            session.execute(update(Attempt).where(Attempt.job_id == job_id).values(values))
        return [claim for claim in map(self.world.claim, offers) if claim is not None]

    def work_dir(self, node: str) -> Path:
        """Where a node keeps its cache, its runs and its locks."""
        return self.settings.work_dir if node == "node-0" else self.settings.work_dir.parent / node

    def supervise(
        self, claim: Claim, node: str = "node-0", *, within: Sequence[str] = (), **changes: str
    ) -> subprocess.Popen[str]:
        """A supervisor of its own process, as in Celery's pool; `within` is a command that runs it."""
        environment = {
            "THAW_DATABASE_URL": self.settings.database_url.get_secret_value(),
            "THAW_REDIS_URL": "redis://127.0.0.1:1/0",
            "THAW_STORE_URL": self.settings.store_url,
            "THAW_WORK_DIR": str(self.work_dir(node)),
            "THAW_NODE_NAME": node,
            "THAW_SLOTS": "2",
            "THAW_TIME_SCALE": str(self.settings.time_scale),
            "THAW_LEASE_S": str(self.settings.lease_s),
            "THAW_HOLD_AFTER_S": str(self.settings.hold_after_s),
            "THAW_TRAINER_ENV": json.dumps({"TINY_MARKER": self.marker}),
            **changes,
        }
        process = subprocess.Popen(
            [*within, sys.executable, "-c", PROGRAM],
            cwd=SOURCES,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(claim), default=str))
        process.stdin.close()
        return process

    def trainers(self) -> list[int]:
        """Living processes of trainers: torch elastic's agent and the ranks."""
        return marked(self.marker)

    def ranks(self) -> list[int]:
        """The ranks alone."""
        return [pid for pid in self.trainers() if b"worker.training" in words(pid) and b"-u" in words(pid)]

    def weights(self, job_id: str) -> dict[str, bytes]:
        """The tensors of the model that a job has left, by name."""
        kept = self.artifacts(job_id)["model.safetensors"].storage_key
        content = b"".join(open_store(self.settings.store_url).stream(kept))
        return {name: tensor.tobytes() for name, tensor in load(content).items()}

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        with transaction(self.world.engine) as session:
            found = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id))
            return sorted(found, key=lambda checkpoint: checkpoint.step)

    def artifacts(self, job_id: str) -> dict[str, Artifact]:
        with transaction(self.world.engine) as session:
            return {
                row.name: row for row in session.scalars(select(Artifact).where(Artifact.job_id == job_id))
            }

    def fetched(self, job_id: str, folder: Path) -> Path:
        """The files of a job's result, brought into `folder`; each is what was stored."""
        store = open_store(self.settings.store_url)
        for artifact in self.artifacts(job_id).values():
            content = b"".join(store.stream(artifact.storage_key))
            assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact.bytes, artifact.sha256)
            target = folder / artifact.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return folder

    def metrics(self, job_id: str) -> list[Metric]:
        with transaction(self.world.engine) as session:
            found = session.scalars(select(Metric).where(Metric.job_id == job_id).order_by(Metric.id))
            return list(found)


def words(pid: int) -> list[bytes]:
    """A process's command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
