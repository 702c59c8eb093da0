"""VGG: Simonyan, Zisserman, "Very Deep Convolutional Networks", ICLR 2015.

The CIFAR form that sparse-training papers use: configuration D's 13 convolutions with
batch normalisation after each, and one linear layer in place of the three large ones.
Names and shapes of ``features`` are those of torchvision's ``vgg16_bn``.
"""

from torch import nn

from elision.workloads.models.base import Pooled, check_positive, initialise

__all__ = ["Vgg", "vgg16"]

#: Configuration D in multiples of the first width; a 0 is a 2x2 maximum pooling.
VGG16 = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)


class Vgg(Pooled):
    """3x3 convolutions and poolings in a row, then one linear layer.

    Poolings round sizes up, so that images smaller than 32x32 pass all five.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        width: channels of the first convolution.
    """

    def __init__(self, *, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        check_positive("Vgg", in_channels=in_channels, classes=classes, width=width)
        layers: list[nn.Module] = []
        channels = in_channels
        for multiple in VGG16:
            if multiple == 0:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            layers.append(nn.Conv2d(channels, multiple * width, 3, padding=1))
            channels = multiple * width
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        initialise(self)


def vgg16(*, in_channels: int, classes: int, width: int = 64) -> Vgg:
    """VGG-16 with batch normalisation for 32x32 images."""
    return Vgg(in_channels=in_channels, classes=classes, width=width)
