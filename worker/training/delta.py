"""What a run adds to its base: trainable.safetensors, which with the base's file makes the model again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from shared.domain.delta import (
    BASE_NAMES,
    BASE_SHA256,
    BASE_STATE_SHA256,
    MODEL_HEADER,
    MODEL_SHA256,
    ModelBase,
    TrainedPart,
)
from shared.domain.events import TRAINABLE_FILE, TrainerSpec
from shared.domain.resolved import NoWeights
from worker.training.files import write_whole
from worker.training.freezing import named_tensors
from worker.training.models import present_name, read_state
from worker.training.proofs import combined, digest

_LENGTH_BYTES = 8
_ALIGNMENT = 8


@dataclass(frozen=True)
class ModelFile:
    """The model's state, and the same as the bytes of model.safetensors."""

    state: Mapping[str, Tensor]
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Taken:
    """The tensors that the base has bit for bit: their names there by their names in the model."""

    names: Mapping[str, str]
    state_sha256: str


def write_delta(
    out: Path, model: nn.Module, file: ModelFile, spec: TrainerSpec, frozen: frozenset[str]
) -> tuple[TrainedPart, ModelBase]:
    """trainable.safetensors, and what model.json says of it and of the base. `frozen` moved in no phase.

    Where the weights are random there is no file of them; the frozen part is then what the seed gives again.
    """
    path = Path(spec.weights.path) if spec.weights else None
    taken = take(file.state, unmoved(model, frozen), path)
    base = ModelBase(
        weights=spec.weights.source if spec.weights else NoWeights(),
        architecture=spec.base,
        seed=spec.seed,
        format=spec.weights.format if spec.weights else None,
        sha256=_file_sha256(path) if path else None,
        state_sha256=taken.state_sha256,
        n_tensors=len(taken.names),
    )
    added = {name: tensor for name, tensor in file.state.items() if name not in taken.names}
    content = with_metadata(save(added), _metadata(file, base, taken))
    write_whole(out / TRAINABLE_FILE, content)
    trained = TrainedPart(
        file=TRAINABLE_FILE, sha256=hashlib.sha256(content).hexdigest(), n_tensors=len(added)
    )
    return trained, base


def unmoved(model: nn.Module, frozen: frozenset[str]) -> frozenset[str]:
    """Every name in the state of a tensor that no phase moved. A new head is never among them: it must train.

    A shared tensor has several names in the state and one in `frozen`: it is told by what it is.
    """
    is_frozen = {id(tensor) for name, tensor in named_tensors(model).items() if name in frozen}
    return frozenset(
        name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in is_frozen
    )


def take(state: Mapping[str, Tensor], unmoved: frozenset[str], base: Path | None) -> Taken:
    """What the base's file has just as the model has it; what was fitted or converted on loading is not."""
    own = {name: digest(tensor) for name, tensor in state.items() if name in unmoved}
    if base is None:
        return Taken({name: name for name in own}, combined(own))
    stored = read_state(base)
    names = {present_name(name): name for name in stored}
    same = {name: names[name] for name in own if name in names and digest(stored[names[name]]) == own[name]}
    return Taken(same, combined({name: own[name] for name in same}))


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with this metadata. The library writes several entries in a new order each time."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    header = {"__metadata__": dict(metadata), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[_LENGTH_BYTES + length :]


def _metadata(file: ModelFile, base: ModelBase, taken: Taken) -> dict[str, str]:
    length = int.from_bytes(file.content[:_LENGTH_BYTES], "little")
    renamed = {name: stored for name, stored in taken.names.items() if stored != name}
    told = {
        "format": "pt",
        BASE_STATE_SHA256: base.state_sha256,
        BASE_NAMES: json.dumps(renamed, separators=(",", ":"), sort_keys=True),
        MODEL_SHA256: file.sha256,
        MODEL_HEADER: file.content[_LENGTH_BYTES : _LENGTH_BYTES + length].decode(),
    }
    return told if base.sha256 is None else {**told, BASE_SHA256: base.sha256}


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
