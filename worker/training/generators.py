"""The random generators that training draws from: torch's, Python's own and numpy's, of each rank."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from worker.training.ranks import Ranks


def seed_generators(seed: int) -> None:
    """All generators of this rank: torch's, those of its GPUs included, numpy's and Python's own."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def save_generators(ranks: Ranks) -> dict[str, Tensor]:
    """The generators of all ranks, one row a rank. Every rank has to call this."""
    own = {"cpu": torch.get_rng_state(), "python": _python_row(), "numpy": _numpy_row()}
    if ranks.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(ranks.device)
    return {kind: torch.stack(ranks.gather(row)) for kind, row in own.items()}


def restore_generators(rows: Mapping[str, Tensor], ranks: Ranks) -> bool:
    """Whether this rank's generators could be put back: not where the number of ranks has changed."""
    if len(rows["cpu"]) != ranks.world_size:
        return False
    own = {kind: row[ranks.rank].clone() for kind, row in rows.items()}  # a view with an offset crashes torch
    torch.set_rng_state(own["cpu"])
    _set_python(own["python"].tolist())
    _set_numpy(own["numpy"].tolist())
    if ranks.device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], ranks.device)
    return True


@contextmanager
def generators_put_back(device: torch.device) -> Iterator[None]:
    """What is drawn inside leaves all generators as they were."""
    of_cpu, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    of_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(of_cpu)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if of_cuda is not None:
            torch.cuda.set_rng_state(of_cuda, device)


def _python_row() -> Tensor:
    """Mersenne Twister as numbers: version, words, and the second half of a pair of normal draws."""
    version, words, spare = random.getstate()
    return torch.tensor([version, *words, *_spare_as_numbers(spare)])


def _set_python(row: Sequence[int]) -> None:
    version, *words, has_spare, spare = row
    random.setstate((version, tuple(words), _as_float(spare) if has_spare else None))


def _numpy_row() -> Tensor:
    state = np.random.get_state(legacy=False)
    spare = state["gauss"] if state["has_gauss"] else None
    return torch.tensor([*state["state"]["key"].tolist(), state["state"]["pos"], *_spare_as_numbers(spare)])


def _set_numpy(row: Sequence[int]) -> None:
    *words, place, has_spare, spare = row
    np.random.set_state(("MT19937", np.array(words, np.uint32), place, has_spare, _as_float(spare)))


def _spare_as_numbers(spare: float | None) -> tuple[int, int]:
    """(whether there is one, its bits)"""
    return int(spare is not None), struct.unpack("<q", struct.pack("<d", spare or 0.0))[0]


def _as_float(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return value
