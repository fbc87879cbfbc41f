"""What a network is trained for, as the engine sees it: its target, its loss, its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from torch import Tensor

from shared.domain.training_result import Evaluation
from worker.training.ranks import Ranks


class Task(Protocol):
    """One way of asking a network something and of judging what it answers.

    `inputs` are normalised pictures, float [batch, 3, height, width]; `target` is what `target` made;
    `output` is whatever the network returned. All lie on the run's device.
    """

    @property
    def answer_in_words(self) -> str:
        """What the network has to give, for the person whose network gives something else."""

    @property
    def output_in_words(self) -> str:
        """What the numbers of the answer mean, for the person who uses the trained network."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what is told of training beside the loss, the main one first; there may be none."""

    def target(self, inputs: Tensor, loaded: Tensor) -> Tensor:
        """What the answer is held against; `loaded` is what the data set gave with the pictures."""

    def answer_shape(self, inputs: Tensor) -> tuple[int, ...]:
        """The shape that the answer to `inputs` must have."""

    def answer(self, output: Any) -> Tensor:
        """The answer in what the network returned. Raises Invalid where there is none."""

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The mean over the batch, in float32, auxiliary outputs included."""

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        """Each of `figures`, summed over the samples of the batch."""

    def new_counts(self) -> Counts:
        """An empty account of how good the network is."""


class Counts(Protocol):
    """What is counted on validation samples; adding up over ranks gives the whole."""

    def add(self, answer: Tensor, target: Tensor) -> None:
        """Counts a batch. Both may lie on any device."""

    def over_ranks(self, ranks: Ranks) -> Self:
        """The counts of all ranks together, on every rank. Every rank has to call it."""

    def evaluation(self) -> Evaluation:
        """The figures that the counts come to. The loss is the plain one, without what only training adds."""
