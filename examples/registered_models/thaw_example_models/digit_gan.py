"""A generator and a discriminator that learn against one another, for 16x16 pictures of values in 0..1.

Both have batch normalisation. While one of them learns, the other is frozen: its parameters stand still, and
its normalisation uses the running statistics and leaves them alone.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

NOISE = 32
WIDTH = 32
# Real pictures count as less than certain, so that the discriminator does not grow too sure of itself.
REAL = 0.9


class DigitGan(nn.Module):
    # On every batch each step runs once, and moves what its patterns match to make that loss smaller.
    training_steps = (
        {"name": "discriminator", "train": "discriminator", "loss": "discriminator_loss"},
        {"name": "generator", "train": "generator", "loss": "generator_loss"},
    )

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.ConvTranspose2d(NOISE, 2 * WIDTH, 4, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(WIDTH, 1, 3, padding=1),
            nn.Sigmoid(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, WIDTH, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * WIDTH, 1, 4),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """How real the pictures look: scores [batch]."""
        return self.discriminator(images).flatten()

    def generate(self, count: int) -> Tensor:
        """Grey pictures [count, 3, 16, 16] with values from 0 to 1."""
        noise = torch.randn(count, NOISE, 1, 1, device=self.generator[0].weight.device)
        return self.generator(noise).expand(-1, 3, -1, -1)

    def discriminator_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Both kinds in one batch: statistics over one kind alone would tell the two apart by themselves."""
        scores = self(torch.cat([images, self.generate(len(images))]))
        truth = torch.cat([images.new_full((len(images),), REAL), images.new_zeros(len(images))])
        return binary_cross_entropy_with_logits(scores, truth)

    def generator_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        scores = self(self.generate(len(images)))
        return binary_cross_entropy_with_logits(scores, torch.ones_like(scores))


def digit_gan() -> nn.Module:
    return DigitGan()


digit_gan.task = "custom"
digit_gan.image_size = (16, 16)
