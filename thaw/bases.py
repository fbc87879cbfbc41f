"""The files that jobs began from, each fetched once and kept on this machine by its hash."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thaw.cache import cache_folder
from thaw.client import Thaw
from thaw.delta import Base
from thaw.downloads import Progress
from thaw.errors import ServerRefused, UsageError
from thaw.packing import file_sha256
from thaw.published_weights import fetch_published

_MODEL = "model.safetensors"
_SUFFIXES = {"safetensors": ".safetensors", "torch": ".pth"}
_NOT_FOUND = 404


@dataclass(frozen=True)
class Found:
    """A base on this machine, and the bytes that it took to bring it here."""

    path: Path
    fetched: int


class Bases:
    """Brings bases here, in `folder` or the user's cache. Two jobs with one base fetch it once."""

    def __init__(self, thaw: Thaw, folder: Path | None = None) -> None:
        self._thaw = thaw
        self._folder = folder or cache_folder("bases")

    def get(self, base: Base, progress: Progress | None = None) -> Found:
        """The very file, by its hash: one that is here already, else from where it lies.

        Raises UsageError where nobody but a person knows the file, ServerRefused where it is gone, and
        ServerUnreachable.
        """
        assert base.sha256 is not None
        assert base.format is not None
        target = self._folder / f"{base.sha256}{_SUFFIXES[base.format]}"
        for here in (target, *_in_torchs_cache(base)):
            if here.is_file() and file_sha256(here) == base.sha256:
                return Found(here, 0)
        self._fetch(base, target, progress)
        return Found(target, target.stat().st_size)

    def _fetch(self, base: Base, target: Path, progress: Progress | None) -> None:
        weights = base.raw["weights"] or {}
        match base.kind:
            case "job":
                self._from_job(base, str(weights["job_id"]), target, progress)
            case "file":
                self._from_file(base, str(weights["file_id"]), target, progress)
            case "published":
                fetch_published(weights, str(base.sha256), target, progress)
            case _:
                raise UsageError(
                    f"only you know where {base.words} is, SHA-256 {base.sha256}: name it with --base"
                )

    def _from_job(self, base: Base, job_id: str, target: Path, progress: Progress | None) -> None:
        try:
            found = {artifact.name: artifact for artifact in self._thaw.jobs.artifacts(job_id)}
        except ServerRefused as error:
            raise _gone(base, error) from error
        model = found.get(_MODEL)
        if model is None or model.sha256 != base.sha256:
            raise _gone(base, None)
        self._thaw.jobs.download(job_id, model, target.parent, progress, called=target.name)

    def _from_file(self, base: Base, file_id: str, target: Path, progress: Progress | None) -> None:
        try:
            file = self._thaw.files.get(file_id)
        except ServerRefused as error:
            raise _gone(base, error) from error
        if file.sha256 != base.sha256:
            raise _gone(base, None)
        self._thaw.files.download(file, target.parent, progress, called=target.name)


def _in_torchs_cache(base: Base, env: Mapping[str, str] = os.environ) -> list[Path]:
    """Where torchvision keeps what it has fetched for this user."""
    if base.kind != "published":
        return []
    cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(env.get("TORCH_HOME") or cache / "torch")
    return [home / "hub" / "checkpoints" / Path(base.raw["weights"]["file_name"]).name]


def _gone(base: Base, refusal: ServerRefused | None) -> ServerRefused:
    """A refusal that is not about the base being gone, such as of the key, is told as it is."""
    if refusal is not None and refusal.status != _NOT_FOUND:
        return refusal
    return ServerRefused(
        f"{base.words}, from which the job began, is gone from the server. Name a copy with --base (SHA-256 "
        f"{base.sha256}), or leave --full out: the whole model is there",
        None,
        refusal.code if refusal else None,
        _NOT_FOUND,
    )
