"""The API as a real server: OpenAI's own client, live events, and what the process holds."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders, refused
from api_server import ROOT, environment, served
from waiting import eventually

from shared.domain.job import JobState
from shared.settings import Settings


def test_openais_client_works_unchanged(settings: Settings, tmp_path: Path) -> None:
    content = class_folders("cat", "dog")
    with api_on(settings) as house, served(settings, tmp_path / "log") as address:
        key = house.client.headers["Authorization"].removeprefix("Bearer ")
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=key)

        file = client.files.create(file=("pets.zip", content), purpose="fine-tune")
        assert (file.object, file.filename, file.bytes, file.status) == (
            "file",
            "pets.zip",
            len(content),
            "processed",
        )
        assert client.files.content(file.id).read() == content
        job = client.fine_tuning.jobs.create(
            model="resnet18",
            training_file=file.id,
            hyperparameters={"n_epochs": 2, "batch_size": 4},
            seed=7,
            metadata={"who": "me"},
            extra_body={"weights": "none", "freeze": "backbone"},
        )
        assert (job.object, job.status, job.seed, job.hyperparameters.n_epochs) == (
            "fine_tuning.job",
            "queued",
            7,
            2,
        )
        assert client.fine_tuning.jobs.retrieve(job.id).id == job.id
        assert [listed.id for listed in client.fine_tuning.jobs.list(limit=1)] == [job.id]
        assert [m.id for m in client.fine_tuning.jobs.list(metadata={"who": "you"})] == []
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=1))
        assert [event.message for event in events] == ["files checked, waits for slots", "created"]
        assert list(client.fine_tuning.jobs.checkpoints.list(job.id)) == []
        assert client.fine_tuning.jobs.pause(job.id).status == "paused"
        assert client.fine_tuning.jobs.resume(job.id).status == "queued"
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        assert client.models.retrieve("resnet18").owned_by == "torchvision"
        assert client.files.delete(file.id).deleted

        with pytest.raises(openai.UnprocessableEntityError) as refusal:
            client.fine_tuning.jobs.create(model="resnet19", training_file=file.id)
        assert refusal.value.param == "training_file"
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="thaw_nobody").models.list()


def test_events_are_sent_as_they_happen_until_the_job_is_over(settings: Settings, tmp_path: Path) -> None:
    with api_on(settings) as house, served(settings, tmp_path / "log") as address:
        job = house.job(training_file=house.data_set("a", "b"))["id"]
        followers = [_Follower(house, address, job, after) for after in (None, "1", "2")]
        eventually(lambda: [len(f.seen) for f in followers] == [2, 1, 0])

        house.move(job, JobState.DISPATCHED, JobState.RUNNING)
        eventually(lambda: [len(f.seen) for f in followers] == [4, 3, 2])
        assert all(follower.is_open for follower in followers)

        house.move(job, JobState.SUCCEEDED)
        for follower in followers:
            follower.thread.join(timeout=20)
            assert not follower.is_open
        assert [event["seq"] for event in followers[0].seen] == [1, 2, 3, 4, 5]
        assert [event["seq"] for event in followers[2].seen] == [3, 4, 5]
        assert followers[0].seen[-1]["data"]["new"] == "succeeded"
        assert followers[0].ids == ["1", "2", "3", "4", "5"]


def test_a_stream_that_cannot_begin_where_it_was_asked_to_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    with api_on(settings) as house, served(settings, tmp_path / "log") as address:
        job = house.job(training_file=house.data_set("a", "b"))["id"]
        house.move(job, JobState.CANCELLED)
        asked = {"Accept": "text/event-stream", "Authorization": house.client.headers["Authorization"]}
        events = f"{address}{JOBS}/{job}/events"

        for bad in ("x", "-1", "ftevent-a-99999999999"):
            refused(httpx.get(events, headers=asked | {"Last-Event-ID": bad}), 422, "Last-Event-ID", bad)
        refused(httpx.get(events, headers=asked, params={"after": "x"}), 422, "after", "x")
        refused(httpx.get(events, headers=asked, params={"until": "3"}), 422, "until", "after")
        late = httpx.get(events, headers=asked, params={"after": "2"})
        assert [line for line in late.text.splitlines() if line.startswith("id:")] == ["id: 3"]


class _Follower:
    """Reads a job's stream in a thread."""

    def __init__(self, house: ApiHouse, address: str, job: str, after: str | None) -> None:
        self.seen: list[dict[str, Any]] = []
        self.ids: list[str] = []
        headers = {"Accept": "text/event-stream", "Authorization": house.client.headers["Authorization"]}
        self._headers = headers | ({"Last-Event-ID": after} if after else {})
        self._url = f"{address}{JOBS}/{job}/events"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    @property
    def is_open(self) -> bool:
        return self.thread.is_alive()

    def _read(self) -> None:
        with httpx.stream("GET", self._url, headers=self._headers, timeout=30) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    self.seen.append(json.loads(value))
                elif name == "id":
                    self.ids.append(value)


def test_the_process_holds_no_torch(settings: Settings) -> None:
    program = (
        "import sys, api.main, api.bootstrap, shared.settings;"
        "api.main.create_app(shared.settings.get_settings());"
        "sys.exit(','.join(sorted({'torch', 'torchvision'} & set(sys.modules))) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_bootstrap_writes_one_private_key_and_only_when_it_is_needed(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "admin-key"

    def bootstrap(*arguments: str) -> str:
        command = [sys.executable, "-m", "api.bootstrap", *arguments]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    assert bootstrap("--key-file", str(path)) == ""
    key = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.startswith("thaw_")
    assert bootstrap("--key-file", str(path)) == ""
    assert path.read_text().strip() == key
    path.write_text("thaw_from_another_database")
    bootstrap("--key-file", str(path))
    renewed = path.read_text().strip()
    assert renewed not in (key, "thaw_from_another_database")
    with api_on(settings) as house:
        for known in (key, renewed, bootstrap("--print").strip()):
            answer = house.client.get("/v1/files", headers={"Authorization": f"Bearer {known}"})
            assert answer.status_code == 200
