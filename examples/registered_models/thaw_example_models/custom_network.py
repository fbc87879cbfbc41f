"""Two convolutions and a linear layer, for 14x14 pictures."""

from torch import Tensor, nn


class CustomNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3)
        self.conv2 = nn.Conv2d(16, 32, 3)
        self.fc = nn.Linear(32 * 10 * 10, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv2(self.conv1(images))
        return self.fc(features.flatten(1))


def custom_network() -> nn.Module:
    return CustomNetwork()


custom_network.head = "fc"
custom_network.image_size = (14, 14)
