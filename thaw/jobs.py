"""Jobs: submit one, see what became of it, and bring its result here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from thaw.downloads import Progress, fetch
from thaw.following import Follower
from thaw.kinds import Kind, path_of, training_path
from thaw.log_following import LogFollower
from thaw.paging import pages
from thaw.shapes import Artifact, Event, Job
from thaw.submission import new_key, submit_once
from thaw.transport import Transport


class Jobs:
    """The team's jobs. What is asked of one job is asked of either kind: its id tells which it is."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, spec: Mapping[str, Any], *, idempotency_key: str | None = None, patience_s: float = 60.0
    ) -> Job:
        """Submit a job, in the words of the API. Raises ServerRefused where it cannot run.

        An answer that was lost on the way is asked for again, for `patience_s`, and makes no second job: the
        submission has `idempotency_key`, left out a new one, as its name.
        """
        return self._submit(Kind.FINE_TUNING, spec, idempotency_key, patience_s)

    def extract(
        self, spec: Mapping[str, Any], *, idempotency_key: str | None = None, patience_s: float = 60.0
    ) -> Job:
        """Submit a feature extraction, as `create` does a job."""
        return self._submit(Kind.FEATURE_EXTRACTION, spec, idempotency_key, patience_s)

    def _submit(self, kind: Kind, spec: Mapping[str, Any], key: str | None, patience_s: float) -> Job:
        named = new_key() if key is None else key
        return Job.read(submit_once(self._transport, kind.path, spec, named, patience_s))

    def delete(self, job_id: str) -> None:
        """Remove a job that is over, and its files. Raises ServerRefused where another job still needs it."""
        self._transport.delete(path_of(job_id))

    def get(self, job_id: str) -> Job:
        """The job as it is now."""
        return Job.read(self._transport.get(path_of(job_id)))

    def list(self, kind: Kind = Kind.FINE_TUNING) -> Iterator[Job]:
        """Every job of one kind of the team, the newest first, fetched a page at a time."""
        return (Job.read(raw) for raw in pages(self._transport, kind.path))

    def cancel(self, job_id: str) -> Job:
        """Ask for the job's end. It stops at the next step, so it may still be running in the answer."""
        return Job.read(self._transport.post(f"{path_of(job_id)}/cancel"))

    def pause(self, job_id: str) -> Job:
        """Ask the job to leave its slots for now. A running one writes a checkpoint first."""
        return Job.read(self._transport.post(f"{path_of(job_id)}/pause"))

    def resume(self, job_id: str, changes: Mapping[str, Any] | None = None) -> Job:
        """Let a paused job go on, changed as the API's words say: {"hyperparameters": {"n_epochs": 5}}."""
        return Job.read(self._transport.post(f"{path_of(job_id)}/resume", changes or None))

    def preempt(self, job_id: str) -> Job:
        """For admins: have the job hand its slots back to others, and wait again."""
        return Job.read(self._transport.post(f"{path_of(job_id)}/preempt"))

    def events(self, job_id: str, after: int = 0, patience_s: float = 60.0) -> Iterator[Event]:
        """Every event after number `after`, live, each once and in order, until the job is over.

        A lost connection is made again; ServerUnreachable comes when the server stays away for `patience_s`.
        """
        return Follower(self._transport, path_of(job_id), after, patience_s).events()

    def wait(self, job_id: str) -> Job:
        """The job when it is over, however it ended."""
        for _ in self.events(job_id):
            continue
        return self.get(job_id)

    def metrics(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The training and validation lines, the oldest first."""
        return pages(self._transport, f"{training_path(job_id)}/metrics", limit=1000)

    def checkpoints(self, job_id: str) -> Iterator[dict[str, Any]]:
        """What the job could go on from, the newest first."""
        return pages(self._transport, f"{training_path(job_id)}/checkpoints")

    def logs(self, job_id: str) -> Iterator[bytes]:
        """What the trainer of the last attempt wrote so far, piece by piece."""
        with self._transport.stream(f"{path_of(job_id)}/logs") as response:
            yield from response.iter_bytes()

    def follow_logs(
        self, job_id: str, look_every_s: float = 1.0, patience_s: float = 60.0
    ) -> Iterator[bytes]:
        """What the trainers of all tries from now on write, until the job is over.

        ServerUnreachable comes when the server stays away for `patience_s`.
        """
        return LogFollower(self._transport, path_of(job_id), look_every_s, patience_s).pieces()

    def artifacts(self, job_id: str) -> Iterator[Artifact]:
        """The files of the job's result."""
        found = pages(self._transport, f"{path_of(job_id)}/artifacts", key="name")
        return (Artifact.read(raw) for raw in found)

    def download(
        self,
        job_id: str,
        artifact: Artifact,
        folder: Path,
        progress: Progress | None = None,
        *,
        called: str | None = None,
    ) -> Path:
        """One file of the result in `folder`, whole and checked, or not there at all."""
        path = f"{path_of(job_id)}/artifacts/{quote(artifact.name)}"
        return fetch(self._transport, path, artifact, folder, progress, called=called)
