"""What a model says of a picture, in the terms of the task that it was trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thaw.errors import UsageError

PRESENT_FROM = 0.5


@dataclass(frozen=True)
class Prediction:
    """The most probable class, its probability, and every class's."""

    label: str
    probability: float
    probabilities: Mapping[str, float]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"class": self.label, "probability": round(self.probability, 4)}

    def cells(self) -> dict[str, Any]:
        """For a table: each column's name and what stands in it."""
        return self.as_data()


@dataclass(frozen=True)
class Labels:
    """The labels whose probability is 0.5 or more, the most probable first, and every label's probability."""

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        rounded = {name: round(value, 4) for name, value in self.probabilities.items()}
        return {"labels": list(self.labels), "probabilities": rounded}

    def cells(self) -> dict[str, Any]:
        """For a table: each column's name and what stands in it."""
        return {"labels": ", ".join(f"{name} {self.probabilities[name]:.2f}" for name in self.labels)}


Answer = Prediction | Labels


def answer_of(card: Mapping[str, Any], output: Tensor) -> Answer:
    """What one picture's output means: `output` has no batch axis. Raises UsageError for an unknown task."""
    names: Sequence[str] = card["class_names"]
    match task_of(card):
        case "classification":
            return _prediction(names, output.softmax(dim=0))
        case "multilabel":
            return _labels(names, output.sigmoid())
    raise UsageError(f"a model for {task_of(card)!r} is newer than this thaw; install the server's version")


def task_of(card: Mapping[str, Any]) -> str:
    """A card from before there were several tasks does not say."""
    return str(card.get("task", "classification"))


def _prediction(names: Sequence[str], probabilities: Tensor) -> Prediction:
    by_name = dict(zip(names, probabilities.tolist(), strict=True))
    label = max(by_name, key=by_name.__getitem__)
    return Prediction(label, by_name[label], by_name)


def _labels(names: Sequence[str], probabilities: Tensor) -> Labels:
    by_name = dict(zip(names, probabilities.tolist(), strict=True))
    present = [name for name, probability in by_name.items() if probability >= PRESENT_FROM]
    return Labels(tuple(sorted(present, key=by_name.__getitem__, reverse=True)), by_name)
