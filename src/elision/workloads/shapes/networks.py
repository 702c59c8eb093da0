"""Layer shapes of published image networks, as data: no weights, no framework.

``network("inception-v4", batch=4)`` lists every convolution and linear layer as
``(name, geometry)``, in the order in which the network runs them. The definitions are
those of the papers where not said otherwise::

    alexnet        arXiv 1404.5997, the single-column form (64 filters in the first layer)
                   that torchvision has, not the two-column network of 2012
    vgg-16         arXiv 1409.1556, configuration D
    resnet-50      arXiv 1512.03385, but stride 2 in the 3x3 convolution of a block, as
                   torchvision has it ("v1.5"), not in the first 1x1
    densenet-264   arXiv 1608.06993, growth 32, blocks of 6, 12, 64 and 48
    inception-v4   arXiv 1602.07261, 299x299
    mobilenet-v2   arXiv 1801.04381, width 1.0
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from elision.common.names import lookup
from elision.products import Conv2dGeometry, Geometry, MatmulGeometry
from elision.workloads.models.mobilenet import HEAD, STAGES, STEM

__all__ = ["NETWORKS", "network"]

Layers = list[tuple[str, Geometry]]


class Feature(NamedTuple):
    """Shape of one image's feature map."""

    channels: int
    height: int
    width: int


@dataclass
class Builder:
    """Collects the layers of a network while its feature shapes are followed.

    Attributes:
        batch: images.
        layers: what was collected.
        stage: prefix of the names of the next layers.
    """

    batch: int
    layers: Layers = field(default_factory=list)
    stage: str = ""

    def _add(self, geometry: Geometry) -> None:
        number = sum(name.startswith(f"{self.stage}.") for name, _ in self.layers)
        self.layers.append((f"{self.stage}.{number + 1}", geometry))

    def conv(
        self,
        x: Feature,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
    ) -> Feature:
        """A convolution; ``padding=None`` keeps the size (at stride 1)."""
        rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        pads = (rows // 2, columns // 2) if padding is None else (padding, padding)
        geometry = Conv2dGeometry(
            self.batch,
            *x,
            out_channels,
            (rows, columns),
            (stride, stride),
            pads,
            groups=groups,
        )
        self._add(geometry)
        return Feature(out_channels, geometry.out_height, geometry.out_width)

    def chain(self, x: Feature, *convs: tuple[int, int | tuple[int, int]]) -> Feature:
        """Convolutions (out channels, kernel) one after the other, size kept."""
        for out_channels, kernel in convs:
            x = self.conv(x, out_channels, kernel)
        return x

    def linear(self, inputs: int, outputs: int) -> None:
        """A fully connected layer."""
        self._add(MatmulGeometry(self.batch, inputs, outputs))


def _pool(x: Feature, kernel: int, stride: int, padding: int = 0) -> Feature:
    def size(length: int) -> int:
        return (length + 2 * padding - kernel) // stride + 1

    return Feature(x.channels, size(x.height), size(x.width))


def _alexnet(net: Builder) -> None:
    net.stage = "features"
    x = _pool(net.conv(Feature(3, 224, 224), 64, 11, stride=4, padding=2), 3, 2)
    x = _pool(net.conv(x, 192, 5), 3, 2)
    x = _pool(net.chain(x, (384, 3), (256, 3), (256, 3)), 3, 2)
    net.stage = "classifier"
    net.linear(x.channels * x.height * x.width, 4096)
    net.linear(4096, 4096)
    net.linear(4096, 1000)


def _vgg_16(net: Builder) -> None:
    net.stage = "features"
    x = Feature(3, 224, 224)
    for channels, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        x = _pool(net.chain(x, *[(channels, 3)] * depth), 2, 2)
    net.stage = "classifier"
    net.linear(x.channels * x.height * x.width, 4096)
    net.linear(4096, 4096)
    net.linear(4096, 1000)


def _resnet_50(net: Builder) -> None:
    net.stage = "stem"
    x = _pool(net.conv(Feature(3, 224, 224), 64, 7, stride=2), 3, 2, 1)
    for index, (width, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(depth):
            net.stage = f"stage{index + 1}.block{block + 1}"
            stride = 2 if index > 0 and block == 0 else 1
            inner = net.conv(net.conv(x, width), width, 3, stride)
            out = net.conv(inner, 4 * width)
            if block == 0:
                net.conv(x, 4 * width, 1, stride)
            x = out
    net.stage = "classifier"
    net.linear(x.channels, 1000)


def _densenet_264(net: Builder) -> None:
    growth, bottleneck = 32, 4
    net.stage = "stem"
    x = _pool(net.conv(Feature(3, 224, 224), 2 * growth, 7, stride=2), 3, 2, 1)
    blocks = (6, 12, 64, 48)
    for index, depth in enumerate(blocks):
        net.stage = f"block{index + 1}"
        for _ in range(depth):
            new = net.chain(x, (bottleneck * growth, 1), (growth, 3))
            x = x._replace(channels=x.channels + new.channels)
        if index + 1 < len(blocks):
            net.stage = f"transition{index + 1}"
            x = _pool(net.conv(x, x.channels // 2), 2, 2)
    net.stage = "classifier"
    net.linear(x.channels, 1000)


def _mobilenet_v2(net: Builder) -> None:
    net.stage = "stem"
    x = net.conv(Feature(3, 224, 224), STEM, 3, stride=2)
    for index, (expansion, channels, depth, first_stride) in enumerate(STAGES):
        for block in range(depth):
            net.stage = f"stage{index + 1}.block{block + 1}"
            hidden = x.channels * expansion
            wide = net.conv(x, hidden) if expansion > 1 else x
            stride = first_stride if block == 0 else 1
            x = net.conv(net.conv(wide, hidden, 3, stride, groups=hidden), channels)
    net.stage = "head"
    x = net.conv(x, HEAD)
    net.stage = "classifier"
    net.linear(x.channels, 1000)


def _inception_v4(net: Builder) -> None:
    net.stage = "stem"
    x = net.conv(Feature(3, 299, 299), 32, 3, stride=2, padding=0)
    x = net.conv(net.conv(x, 32, 3, padding=0), 64, 3)
    x = _concatenated(net.conv(x, 96, 3, stride=2, padding=0), x.channels)
    left = net.conv(net.conv(x, 64), 96, 3, padding=0)
    right = net.chain(x, (64, 1), (64, (1, 7)), (64, (7, 1)))
    x = _concatenated(left, net.conv(right, 96, 3, padding=0).channels)
    x = _concatenated(net.conv(x, 192, 3, stride=2, padding=0), x.channels)

    for block in range(4):
        net.stage = f"inception_a{block + 1}"
        _branches(
            net,
            x,
            [(96, 1)],
            [(64, 1), (96, 3)],
            [(64, 1), (96, 3), (96, 3)],
            [(96, 1)],
        )
    net.stage = "reduction_a"
    left = net.conv(x, 384, 3, stride=2, padding=0)
    right = net.conv(net.chain(x, (192, 1), (224, 3)), 256, 3, stride=2, padding=0)
    x = _concatenated(left, right.channels + x.channels)

    for block in range(7):
        net.stage = f"inception_b{block + 1}"
        _branches(
            net,
            x,
            [(384, 1)],
            [(192, 1), (224, (1, 7)), (256, (7, 1))],
            [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))],
            [(128, 1)],
        )
    net.stage = "reduction_b"
    left = net.conv(net.conv(x, 192), 192, 3, stride=2, padding=0)
    right = net.chain(x, (256, 1), (256, (1, 7)), (320, (7, 1)))
    right = net.conv(right, 320, 3, stride=2, padding=0)
    x = _concatenated(left, right.channels + x.channels)

    for block in range(3):
        net.stage = f"inception_c{block + 1}"
        net.conv(x, 256)
        split = net.conv(x, 384)
        _branches(net, split, [(256, (1, 3))], [(256, (3, 1))])
        split = net.chain(x, (384, 1), (448, (3, 1)), (512, (1, 3)))
        _branches(net, split, [(256, (1, 3))], [(256, (3, 1))])
        net.conv(x, 256)
    net.stage = "classifier"
    net.linear(x.channels, 1000)


def _branches(
    net: Builder, x: Feature, *branches: list[tuple[int, int | tuple[int, int]]]
) -> None:
    """Chains of convolutions that all start from ``x``."""
    for branch in branches:
        net.chain(x, *branch)


def _concatenated(x: Feature, more_channels: int) -> Feature:
    return x._replace(channels=x.channels + more_channels)


#: Networks by name.
NETWORKS: dict[str, Callable[[Builder], None]] = {
    "alexnet": _alexnet,
    "vgg-16": _vgg_16,
    "resnet-50": _resnet_50,
    "densenet-264": _densenet_264,
    "inception-v4": _inception_v4,
    "mobilenet-v2": _mobilenet_v2,
}


def network(name: str, batch: int = 1) -> Layers:
    """The convolutions and linear layers of a network, 1,000 classes.

    Args:
        name: a name of :data:`NETWORKS`.
        batch: images.

    Raises:
        ValueError: unknown name, or a batch below 1.
    """
    builder = Builder(batch)
    lookup("network", name, NETWORKS)(builder)
    return builder.layers
