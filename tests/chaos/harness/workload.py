"""The jobs of a run: submitted over HTTP by their teams, followed live, fetched when they are over."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from harness.injector import boottime
from harness.teams import Owed

from thaw.client import Thaw
from thaw.errors import ServerRefused, ServerUnreachable
from thaw.shapes import Event, Job
from thaw.transport import Transport

MODEL = "slow_network"
_PATIENCE_S = 600.0
_LOOK_AGAIN_S = 0.5
T = TypeVar("T")

# By name, what differs: nodes, ranks on each of them, whether processes of their own load the pictures.
VARIETIES: dict[str, dict[str, Any]] = {
    "alone": {"ranks": 1, "augment": "none", "seed": 1},
    "loading": {"ranks": 1, "augment": "crop_flip", "seed": 2},
    "pair": {"ranks": 2, "augment": "none", "seed": 3},
    "gang": {"ranks": 1, "nodes": 2, "augment": "none", "seed": 4},
}
_TURNS = ("alone", "loading", "pair", "gang")


def variety(number: int) -> str:
    """The variety of a run's job `number`."""
    return _TURNS[number % len(_TURNS)]


def spec(name: str, file: str, n_epochs: int) -> dict[str, Any]:
    """The body of a job of one variety."""
    differing = VARIETIES[name]
    return {
        "model": MODEL,
        "training_file": file,
        "validation_fraction": 0.2,
        "hyperparameters": {"n_epochs": n_epochs, "batch_size": 16, "learning_rate": 0.001},
        "preprocessing": {"image_size": 8, "augment": differing["augment"]},
        "resources": {"devices_per_node": differing["ranks"], "nodes": differing.get("nodes", 1)},
        "seed": differing["seed"],
        "metadata": {"variety": name},
    }


@dataclass
class Followed:
    """A job, and its events as a follower heard them, each with when it came (boot time, seconds).

    `team` None: it is the first admin's.
    """

    id: str
    variety: str
    heard: list[tuple[float, Event]] = field(default_factory=list)
    failure: str | None = None
    team: str | None = None


@dataclass(frozen=True)
class Ended:
    """What the API says of a job at the end; `weights` is the SHA-256 of the bytes it sent."""

    job: Job
    events: list[Event]
    artifacts: list[str]
    weights: str | None


class _Account:
    """A team's key, and the pictures that it has uploaded."""

    def __init__(self, url: str, api_key: str, pictures: Path) -> None:
        self.key = api_key
        self.thaw = Thaw(url, api_key)
        self.transport = Transport(url, api_key)
        self.file = self.thaw.files.upload(pictures).id


class Workload:
    """Jobs and their followers, each a thread with a client of its own."""

    def __init__(self, url: str, api_key: str, pictures: Path) -> None:
        self.jobs: list[Followed] = []
        self._to_come = 0
        self._url = url
        self._pictures = pictures
        self._admin = _Account(url, api_key, pictures)
        self._accounts: dict[str | None, _Account] = {None: self._admin}
        self._threads: dict[str, Thread] = {}

    def found(self, owed: Mapping[str, Owed]) -> None:
        """Make the teams that there are not yet, and give each its quota."""
        for team in owed.keys() - self._accounts.keys():
            self._admin.thaw.teams.create(team)
            key = self._admin.thaw.keys.create("chaos", "member", team=team)["key"]
            self._accounts[team] = _Account(self._url, key, self._pictures)
            self._admin.thaw.quotas.replace(team, owed[team].terms())

    def submit(self, name: str, n_epochs: int, team: str | None = None) -> Followed:
        """Submit a job and begin to follow it; again under the same key while there is no answer."""
        account, key = self._accounts[team], uuid.uuid4().hex
        body = spec(name, account.file, n_epochs)
        job = patiently(lambda: account.thaw.jobs.create(body, idempotency_key=key), _PATIENCE_S)
        followed = Followed(job.id, name, team=team)
        thread = Thread(target=self._follow, args=(followed,), name=f"follows-{followed.id}", daemon=True)
        thread.start()
        self._threads[followed.id] = thread
        self.jobs.append(followed)
        return followed

    def submit_later(self, jobs: Sequence[tuple[str, str | None]], n_epochs: int, every_s: float) -> None:
        """Submit these varieties for these teams from a thread, `every_s` seconds apart, come what may."""
        self._to_come += len(jobs)
        Thread(target=self._submit_late, args=(jobs, n_epochs, every_s), daemon=True).start()

    @property
    def open(self) -> list[str]:
        """The jobs that are not over, as far as their followers have heard, and those that are to come."""
        going_on = [id for id, thread in list(self._threads.items()) if thread.is_alive()]
        return going_on + ["not submitted yet"] * self._to_come

    def strangers(self) -> list[str]:
        """Jobs that the service has and nobody here knows of."""
        ours = {job.id for job in self.jobs}
        return [id for one in self._accounts.values() for id in _jobs_of(one) if id not in ours]

    def _submit_late(self, jobs: Iterable[tuple[str, str | None]], n_epochs: int, every_s: float) -> None:
        for name, team in jobs:
            time.sleep(every_s)
            self.submit(name, n_epochs, team)
            self._to_come -= 1

    def nodes(self) -> list[dict[str, Any]]:
        return patiently(self._admin.thaw.nodes)

    def ended(self, followed: Followed) -> Ended:
        """All that is to be checked of one job."""
        account, job_id = self._accounts[followed.team], followed.id
        jobs, transport = account.thaw.jobs, account.transport
        job = patiently(lambda: jobs.get(job_id))
        artifacts = patiently(lambda: [one.name for one in jobs.artifacts(job_id)])
        weights = None
        if "model.safetensors" in artifacts:
            weights = patiently(lambda: _weights(transport, job_id))
        return Ended(job, patiently(lambda: _events(transport, job_id)), artifacts, weights)

    def _follow(self, followed: Followed) -> None:
        try:
            with Thaw(self._url, self._accounts[followed.team].key) as thaw:
                for event in thaw.jobs.events(followed.id, patience_s=_PATIENCE_S):
                    followed.heard.append((boottime(), event))
        except (ServerUnreachable, ServerRefused) as error:
            followed.failure = str(error)


def _jobs_of(account: _Account) -> list[str]:
    return [job.id for job in patiently(lambda: list(account.thaw.jobs.list()))]


def _weights(transport: Transport, job_id: str) -> str:
    path = f"/v1/fine_tuning/jobs/{job_id}/artifacts/model.safetensors"
    with transport.stream(path) as response:
        return hashlib.sha256(b"".join(response.iter_bytes())).hexdigest()


def _events(transport: Transport, job_id: str) -> list[Event]:
    """The whole list, as its pages give it and no follower."""
    path, found, after = f"/v1/fine_tuning/jobs/{job_id}/events", [], None
    while True:
        page = transport.get(path, limit=100, order="asc", after=after)
        found += [Event.read(raw["seq"], raw) for raw in page["data"]]
        if not page["has_more"]:
            return found
        after = str(found[-1].seq)


def patiently(ask: Callable[[], T], within_s: float = 60.0) -> T:
    """Ask again while the server is away or not itself yet."""
    until = time.monotonic() + within_s
    while True:
        try:
            return ask()
        except (ServerUnreachable, ServerRefused):
            if time.monotonic() > until:
                raise
        time.sleep(_LOOK_AGAIN_S)
