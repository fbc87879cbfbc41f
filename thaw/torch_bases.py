"""Bases that only torch can read or make, as safetensors files. Needs the extra `thaw[torch]`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from thaw.errors import UsageError
from thaw.torch import bare_network, with_outputs


def write_published(source: Path, target: Path) -> None:
    """A file that torchvision published, its tensors under the names that they have there."""
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError) as error:
        raise UsageError(f"{source} cannot be read as a file that torch wrote: {error}") from error
    _write(state, target)


def write_random(base: Mapping[str, Any], preprocessing: Mapping[str, Any], target: Path) -> None:
    """The network as the trainer built it from the seed, before its first step. `base` is of model.json."""
    architecture = base["architecture"]
    with _seeded(base["seed"]):
        network = bare_network(architecture, preprocessing, init_weights=True)
        for path in architecture["head"]:
            layer = with_outputs(network.get_submodule(path), architecture["num_classes"])
            network.set_submodule(path, layer)
    _write(network.state_dict(), target)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """All generators as the trainer seeds them; afterwards they are as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _write(state: Mapping[str, Tensor], target: Path) -> None:
    """Copies, as the library refuses tensors that share their memory."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, target)
