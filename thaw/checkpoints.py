"""A job's checkpoints: what it could go on from, and what training had moved by then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from thaw.downloads import Progress, fetch
from thaw.errors import UsageError
from thaw.kinds import training_path
from thaw.paging import pages
from thaw.shapes import Artifact
from thaw.transport import Transport
from thaw.whole_files import written_whole

_MANIFEST = "manifest.json"


class Checkpoints:
    """Those that a job keeps, each as the server's answer has it. `thaw.jobs.checkpoints` lists them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def find(self, job_id: str, wanted: str) -> dict[str, Any]:
        """`newest`, `best`, a number of steps, or an id. Raises UsageError with those that there are."""
        known = list(pages(self._transport, f"{training_path(job_id)}/checkpoints"))
        for one in known:
            if wanted in (one["id"], str(one["step_number"])) or one.get(f"is_{wanted}") is True:
                return one
        steps = ", ".join(str(one["step_number"]) for one in known)
        raise UsageError(
            f"{job_id} has no checkpoint {wanted!r}; it keeps "
            + (f"those of the steps {steps}" if known else "none yet")
            + "; newest and best name one too"
        )

    def download(
        self,
        job_id: str,
        checkpoint: Mapping[str, Any],
        file: Artifact,
        folder: Path,
        progress: Progress | None = None,
    ) -> Path:
        """One of its files in `folder`, whole and checked."""
        return fetch(
            self._transport, f"{_path(job_id, checkpoint)}/{quote(file.name)}", file, folder, progress
        )

    def download_manifest(self, job_id: str, checkpoint: Mapping[str, Any], folder: Path) -> Path:
        """Its manifest.json, which makes the folder whole: written last."""
        with self._transport.stream(f"{_path(job_id, checkpoint)}/{_MANIFEST}") as response:
            content = b"".join(response.iter_bytes())
        with written_whole(folder / _MANIFEST) as out:
            out.write(content)
        return folder / _MANIFEST


def files_of(checkpoint: Mapping[str, Any]) -> list[Artifact]:
    """Its files but the manifest."""
    return [Artifact.read(raw) for raw in checkpoint["files"]]


def _path(job_id: str, checkpoint: Mapping[str, Any]) -> str:
    return f"{training_path(job_id)}/checkpoints/{quote(checkpoint['id'])}/files"
