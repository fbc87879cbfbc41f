"""Networks for tests that bring their own training steps, the good one and those that break their word.

They import torch alone, so that a loop that knows nothing of Thaw can train them too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

HEIGHT = WIDTH = 16
NOISE = 6


class Pair(nn.Module):
    """A generator and a discriminator, each with batch normalisation, that train against one another."""

    task = "custom"
    image_size = (HEIGHT, WIDTH)
    training_steps = (
        {"name": "discriminator", "train": "discriminator", "loss": "discriminator_loss"},
        {"name": "generator", "train": "generator", "loss": "generator_loss"},
    )

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(NOISE, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3 * HEIGHT * WIDTH)
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 1)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.discriminator(pictures)

    def generate(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, NOISE)).view(count, 3, HEIGHT, WIDTH)

    def discriminator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        scores = self.discriminator(torch.cat([pictures, self.generate(len(pictures))]))
        real, made = scores.split(len(pictures))
        return softplus(-real).mean() + softplus(made).mean()

    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        return softplus(-self.discriminator(self.generate(len(pictures)))).mean()


class Entangled(Pair):
    """A part of the generator is trained by both steps, and the discriminator has one that no loss uses."""

    training_steps = (
        {"name": "discriminator", "train": ["discriminator", "generator.3"], "loss": "discriminator_loss"},
        Pair.training_steps[1],
    )

    def __init__(self) -> None:
        super().__init__()
        self.discriminator.add_module("unused", nn.Identity())
        self.discriminator.unused.extra = nn.Linear(3, 3)


class Counting(Pair):
    """Counts its losses, so that one may go wrong later than in the first, in preflight and probe."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 4:
            self.go_wrong()
        return super().generator_loss(pictures, classes)

    def go_wrong(self) -> None:
        """Nothing does."""


class Meddling(Counting):
    """Its generator's loss moves a weight of the discriminator by the least that there is."""

    def go_wrong(self) -> None:
        weight = self.discriminator[4].weight.data
        weight[0, 3] = torch.nextafter(weight[0, 3], torch.tensor(9.0))


class Unstill(Counting):
    """Its generator's loss takes the discriminator out of eval mode, so that its statistics move."""

    def go_wrong(self) -> None:
        self.discriminator.train()


class Overflowing(Counting):
    """Its generator's loss becomes infinite later on."""

    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        loss = super().generator_loss(pictures, classes)
        return loss / 0 if self.calls > 4 else loss


class OneForEach(Pair):
    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        return softplus(-self.discriminator(self.generate(len(pictures)))).flatten()


class Wordy(Pair):
    """Its discriminator's loss is no tensor, which is what is to be refused."""

    def discriminator_loss(self, pictures: Tensor, classes: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # wrong
        return {"loss": super().discriminator_loss(pictures, classes)}


class Endless(Pair):
    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        return super().generator_loss(pictures, classes) / 0


class Raising(Pair):
    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        raise ValueError("the noise is too quiet")


class Detached(Pair):
    def generator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        return super().generator_loss(pictures, classes).detach()


class Impatient(Pair):
    """Its loss needs gradients, which there are none of in evaluation."""

    def discriminator_loss(self, pictures: Tensor, classes: Tensor) -> Tensor:
        loss = super().discriminator_loss(pictures, classes)
        torch.autograd.grad(loss, self.discriminator[0].weight, retain_graph=True, allow_unused=True)
        return loss


class Silent(Pair):
    """Cannot be called itself: its steps are all that it is for."""

    forward = nn.Module.forward


class Misnamed(Pair):
    training_steps = (Pair.training_steps[0], {**Pair.training_steps[1], "train": "generater"})


STEP_NETWORKS = {
    "pair": Pair,
    "silent": Silent,
    "misnamed": Misnamed,
    "entangled": Entangled,
    "meddling": Meddling,
    "unstill": Unstill,
    "overflowing": Overflowing,
    "one_for_each": OneForEach,
    "wordy": Wordy,
    "endless": Endless,
    "raising": Raising,
    "detached": Detached,
    "impatient": Impatient,
}
