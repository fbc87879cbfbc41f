"""The two halves of a trained model: what it takes from its base, and what it adds to that.

    in model.json       `base` (ModelBase) and `trainable` (TrainedPart)
    in the metadata     of trainable.safetensors: the names below, so that the file alone tells what it needs

The base's file and trainable.safetensors make model.safetensors again, bit for bit. thaw/rebuilding.py does
it, by the same names.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.domain.resolved import Architecture, Weights
from shared.domain.shape import Shape

# sha256 of the base's file; not there where the base is random.
BASE_SHA256 = "base_sha256"
# A hash over the tensors that are taken from it, as in ModelBase.
BASE_STATE_SHA256 = "base_state_sha256"
# A JSON object: {a tensor's name in the model: its name in the base's file}, where the two differ.
BASE_NAMES = "base_names"
MODEL_SHA256 = "model_sha256"
# The header of model.safetensors, byte for byte. Versions of the library may order tensors differently.
MODEL_HEADER = "model_header"


class TrainedPart(Shape):
    """trainable.safetensors: what could move, a new head, and what the base's file holds otherwise or not."""

    file: str
    sha256: str
    n_tensors: int


class ModelBase(Shape):
    """Where the model's other tensors come from."""

    weights: Weights | None = Field(description="None for a file that a person named to the trainer")
    architecture: Architecture = Field(description="the network that the weights fit")
    seed: int = Field(description="of weights that are random")
    format: Literal["safetensors", "torch"] | None = Field(description="of the file; None: random, no file")
    sha256: str | None = Field(description="of the whole file; None: random, no file")
    state_sha256: str = Field(
        description="over the names, types, shapes and bytes of the tensors that are taken from the base, "
        "made as `frozen_proof` in result.json is: equal to it where just the frozen part is taken"
    )
    n_tensors: int = Field(description="that are taken from the base")
