"""The API on a test's own database and store, with the files and words that tests of it need."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import Engine, func, select
from structlog.testing import capture_logs

from api.bootstrap import new_admin_key
from api.main import create_app
from shared.artifacts import open_store
from shared.artifacts.keys import artifact_key
from shared.db.engine import transaction
from shared.db.history import lock_job, move
from shared.db.keys import make_key, make_team
from shared.db.models import Artifact, Attempt, Event, File, Job, RegisteredModel
from shared.db.nodes import NodeFacts, register
from shared.domain.job import AttemptState, JobState
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo
from shared.ids import new_id
from shared.settings import Settings

JOBS = "/v1/fine_tuning/jobs"
SMALL = {"model": "resnet18", "weights": "none"}


@dataclass
class ApiHouse:
    """A client with an admin's key, the database behind it, and what the server logs."""

    client: TestClient
    engine: Engine
    settings: Settings
    log: list[MutableMapping[str, Any]]

    def upload(self, content: bytes, name: str = "data.zip") -> Response:
        return self.client.post("/v1/files", files={"file": (name, content)}, data={"purpose": "fine-tune"})

    def data_set(self, *class_names: str, samples: int = 3) -> str:
        """The id of an uploaded data set with these classes."""
        answer = self.upload(class_folders(*class_names, samples=samples))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def submit(self, **body: Any) -> Response:
        return self.client.post(JOBS, json={**SMALL, **body})

    def job(self, **body: Any) -> dict[str, Any]:
        answer = self.submit(**body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def other_team(self) -> dict[str, str]:
        """Headers of a member of another team."""
        with transaction(self.engine) as session:
            key = make_key(session, make_team(session, "others"), name="theirs", role="member")
        return {"Authorization": f"Bearer {key}"}

    def viewer(self) -> dict[str, str]:
        """Headers of somebody of the admin's own team who may only look."""
        with transaction(self.engine) as session:
            key = make_key(session, make_team(session, "default"), name="looks", role="viewer")
        return {"Authorization": f"Bearer {key}"}

    def move(self, job_id: str, *states: JobState) -> None:
        """Move a job along, as the scheduler and a worker would."""
        with transaction(self.engine) as session:
            for state in states:
                move(session, lock_job(session, job_id), state, actor="test", reason=f"now {state}")

    def count(self, table: type[Job | File | Event]) -> int:
        with transaction(self.engine) as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def stored_bytes(self) -> list[Path]:
        """Every file in the store."""
        root = Path(urlsplit(self.settings.store_url).path)
        return [path for path in root.rglob("*") if path.is_file()]

    def node(
        self,
        name: str = "node-0",
        *,
        slots: int = 2,
        models: Sequence[tuple[str, str]] = (),
        accelerator: str = "cpu",
        memory_bytes: int | None = None,
        host: str = "127.0.0.1",
        machine: str | None = None,
    ) -> None:
        place = (f"run.{name}", host, 29500)
        facts = NodeFacts(name, *place, accelerator, memory_bytes, slots, tuple(models), machine=machine)
        with transaction(self.engine) as session:
            register(session, facts, uuid4())

    def register_model(self, name: str, description: dict[str, Any], hash: str = "h1") -> None:
        with transaction(self.engine) as session:
            session.add(RegisteredModel(name=name, hash=hash, version="1.0", description=description))

    def add_artifact(self, job_id: str, name: str, content: bytes, *, number: int = 1) -> None:
        """A finished attempt of the job, with one file of its result in the store."""
        with transaction(self.engine) as session:
            attempt = Attempt(
                id=new_id("attempt"),
                job_id=job_id,
                number=number,
                state=AttemptState.ENDED,
                nodes=1,
                lease_token=uuid4(),
                master_addr="127.0.0.1",
                master_port=1,
                ended_at=func.clock_timestamp(),
            )
            session.add(attempt)
            session.flush()
            team_id = session.get_one(Job, job_id).team_id
            key = artifact_key(team_id, job_id, attempt.id, name)
            stored = open_store(self.settings.store_url).put_bytes(key, content)
            session.add(
                Artifact(
                    job_id=job_id,
                    name=name,
                    attempt_id=attempt.id,
                    storage_key=key,
                    bytes=stored.size,
                    sha256=stored.sha256,
                )
            )


@contextmanager
def api_on(settings: Settings) -> Iterator[ApiHouse]:
    """The application with an admin's key."""
    app = create_app(settings)
    engine = app.state.parts.engine
    headers = {"Authorization": f"Bearer {new_admin_key(engine)}"}
    with (
        capture_logs() as log,
        TestClient(app, headers=headers, raise_server_exceptions=False) as client,
    ):
        yield ApiHouse(client, engine, settings, log)


def refused(answer: Response, status: int, param: str | None, *words: str) -> dict[str, Any]:
    """Assert the envelope of a refusal: its status, the field it names, and words of its message."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param, error
    for word in words:
        assert word in error["message"], error
    return error


def class_folders(*class_names: str, samples: int = 3, below: str = "") -> bytes:
    """A zip of class folders; its pictures are not looked at before training."""
    return zip_of({f"{below}{name}/{i}.png": b"picture" for name in class_names for i in range(samples)})


def zip_of(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # Without the time of day, so that the same files make the same bytes.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def parquet_of(columns: Mapping[str, Any], **options: Any) -> bytes:
    packed = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), packed, **options)
    return packed.getvalue()


def safetensors_of(shapes: Mapping[str, Sequence[int]]) -> bytes:
    """A safetensors file of float32 zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, size = end, 4
        for side in shape:
            size *= side
        end = begin + size
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def two_layer_tree(num_classes: int = 10) -> ModuleTree:
    """A registered model of two layers."""
    return ModuleTree(
        modules=(
            ModuleInfo("", "Net"),
            ModuleInfo("conv1", "Conv2d", (TensorInfo("weight", (16, 3, 3, 3)), TensorInfo("bias", (16,)))),
            ModuleInfo(
                "fc",
                "Linear",
                (TensorInfo("weight", (num_classes, 16)), TensorInfo("bias", (num_classes,))),
            ),
        ),
        aliases={},
        head=("fc",),
        blocks=("conv1",),
        num_classes=num_classes,
    )
