"""Networks with every operation that has an integer form, small, and their inputs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.workloads.models import make_model

SIDE = 16


class Fire(nn.Module):
    """Two arms, concatenated, behind a maximum whose last window ends outside."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 4, 1)
        self.narrow = nn.Conv2d(4, 6, 1)
        self.wide = nn.Conv2d(4, 6, 3, padding="same", dilation=2)
        self.last = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(F.max_pool2d(x, 3, 2, ceil_mode=True)))
        x = torch.cat([F.relu(self.narrow(x)), F.relu(self.wide(x))], 1)
        x = F.avg_pool2d(F.dropout(x, 0.5, self.training), 2)
        return F.adaptive_avg_pool2d(F.relu(self.last(x)), 1).flatten(1)


class Excited(nn.Module):
    """h-swish, swish, and channels scaled by a hard sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, padding=1)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last = nn.Linear(8 * (SIDE // 2) ** 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.first(x))
        gate = F.silu(self.down(x.mean((2, 3), keepdim=True)))
        x = x * F.hardsigmoid(self.up(gate))
        return self.last(torch.tanh(x).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": lambda: make_model("resnet8", in_channels=3, classes=5, width=4),
    "mobilenet-v2": lambda: make_model(
        "mobilenet-v2", in_channels=3, classes=5, width=0.25
    ),
    "cnn": lambda: make_model("cnn", in_channels=3, classes=5, width=4),
    "fire": Fire,
    "excited": Excited,
}


def made(name: str, images: int = 32) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode whose norms have seen the images, and the images."""
    torch.manual_seed(0)
    model, inputs = NETWORKS[name](), torch.randn(images, 3, SIDE, SIDE)
    with torch.no_grad():
        for _ in range(10):
            model.train()(inputs)
    return model.eval().requires_grad_(False), inputs
