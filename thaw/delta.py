"""What a job added to its base, read from the folder of its result: model.json and trainable.safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.errors import UsageError
from thaw.packing import file_sha256
from thaw.tensor_file import Header, TensorFile

CARD = "model.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Base:
    """What the job began from. `raw` is the part of model.json that tells of it."""

    raw: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """none (random), published, file, job; local for a file that a person named to the trainer."""
        return str((self.raw["weights"] or {}).get("kind", "local"))

    @property
    def format(self) -> str | None:
        """safetensors or torch; None where there is no file, as the weights were random."""
        found: str | None = self.raw["format"]
        return found

    @property
    def sha256(self) -> str | None:
        """Of the file; None where there is none."""
        found: str | None = self.raw["sha256"]
        return found

    @property
    def state_sha256(self) -> str:
        """Over the tensors that the model takes from it."""
        return str(self.raw["state_sha256"])

    @property
    def words(self) -> str:
        """What to call it."""
        match self.raw["weights"]:
            case {"kind": "none"}:
                return f"the random weights of seed {self.raw['seed']}"
            case {"kind": "published", "name": name, "file_name": file_name}:
                return f"the published weights {name} ({file_name})"
            case {"kind": "file", "file_id": file_id}:
                return f"the uploaded file {file_id}"
            case {"kind": "job", "job_id": job_id}:
                return f"the model of {job_id}"
        return "a file on the trainer's machine"


@dataclass(frozen=True)
class Source:
    """Where the bytes of one tensor are."""

    file: TensorFile
    name: str


@dataclass(frozen=True)
class Delta:
    """trainable.safetensors, the layout of the model that it makes, and the base that it needs for it."""

    card: Mapping[str, Any]
    file: TensorFile
    model: Header
    base_names: Mapping[str, str]

    @property
    def job_id(self) -> str:
        return str(self.card["job_id"])

    @property
    def model_file(self) -> str:
        return str(self.card["weights_file"])

    @property
    def model_sha256(self) -> str:
        return str(self.card["weights_sha256"])

    @property
    def base(self) -> Base:
        return Base(self.card["base"])

    @property
    def taken(self) -> frozenset[str]:
        """The names of the tensors that come from the base."""
        return frozenset(self.model.entries) - frozenset(self.file.header.entries)

    @property
    def needs_file(self) -> bool:
        """Whether the base is a file, and anything of it is left in the model."""
        return bool(self.taken) and self.base.format is not None

    def sources(self, base: TensorFile | None) -> dict[str, Source]:
        """Where each of the model's tensors is, in its order. Raises UsageError where one is nowhere."""
        order = sorted(self.model.entries, key=lambda name: self.model.entries[name].begin)
        return {name: self._source(name, base) for name in order}

    def _source(self, name: str, base: TensorFile | None) -> Source:
        if name in self.file.header.entries or base is None:
            source = Source(self.file, name)
        else:
            source = Source(base, self.base_names.get(name, name))
        wanted, found = self.model.entries[name], source.file.header.entries.get(source.name)
        if found is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            there = f"{found.dtype} {list(found.shape)}" if found else "not there"
            raise UsageError(
                f"{source.name!r} must be {wanted.dtype} {list(wanted.shape)}, and is {there} in "
                f"{source.file.path}"
            )
        return source


def read_delta(folder: Path) -> Delta:
    """Raises UsageError for a damaged file, for another job's, and for a result that names no base."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        told = card.get("trainable"), card.get("base")
        if None in told:
            raise UsageError(
                f"{folder / CARD} names no base, as it is of an older version; "
                f"`thaw download {card['job_id']}` brings the whole model"
            )
        path = folder / Path(card["trainable"]["file"]).name
        _check_own(path, card)
        return _checked(card, TensorFile.read(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder}: what the job trained cannot be read: {error!r}") from error


def _check_own(path: Path, card: Mapping[str, Any]) -> None:
    found, wanted = file_sha256(path), card["trainable"]["sha256"]
    if found != wanted:
        raise UsageError(
            f"{path} is damaged, or of another job than {card['job_id']}: its SHA-256 is {found}, and "
            f"{CARD} names {wanted}; download it again"
        )


def _checked(card: Mapping[str, Any], file: TensorFile) -> Delta:
    told = file.header.metadata
    delta = Delta(card, file, Header.parse(told["model_header"]), json.loads(told["base_names"]))
    same = (
        ("model_sha256", delta.model_sha256),
        ("base_state_sha256", delta.base.state_sha256),
        ("base_sha256", delta.base.sha256),
    )
    for name, in_card in same:
        if told.get(name) != in_card:
            raise ValueError(f"its {name} is {told.get(name)}, and {CARD} has {in_card}")
        if in_card is not None and not _SHA256.fullmatch(in_card):
            raise ValueError(f"{name} {in_card!r} is no SHA-256")
    return delta
