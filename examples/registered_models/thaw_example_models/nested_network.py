"""An autoencoder with a classifier on its code, for 24x40 pictures.

The decoder runs in `forward`, but no score depends on it: trained on labels alone, it gets no gradient.
"""

from torch import Tensor, nn


class NestedNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 2, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 2, stride=2),
        )
        self.classifier = nn.Linear(16 * 8 * 8, 10)

    def forward(self, images: Tensor) -> Tensor:
        code = self.encoder(images)
        self.decoder(code)
        return self.classifier(code.reshape(-1, 16 * 8 * 8))


def nested_network() -> nn.Module:
    return NestedNetwork()


nested_network.head = "classifier"
nested_network.image_size = (24, 40)
