"""Photographs for trained ImageNet networks: 20 of ImageNet's own, and some free ones.

Both come out of installed packages and are only evaluated, never trained on. The classes'
names are those in the package torchvision, which is read and not imported.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elision.common.checks import integer
from elision.workloads.data.base import installed_folder
from elision.workloads.data.photo_patches import PHOTOS, read_rgb

__all__ = [
    "Photographs",
    "class_names",
    "free_photographs",
    "imagenet_photographs",
    "prepared",
]

#: Number of ImageNet's classes.
CLASSES = 1000

#: Mean and deviation of ImageNet's channels, in [0, 1], as torchvision's weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Shorter side after resizing, over the side of the square cut out of its middle.
_AROUND = 256 / 224

#: Photographs that show one thing, of PHOTOS.
_OF_A_THING = ("cat", "china", "coffee", "flower", "motorcycle", "rocket")


@dataclass(frozen=True)
class Photographs:
    """Photographs, as pixels and as a trained network takes them.

    Attributes:
        pixels: ``(N, 3, side, side)`` uint8.
        images: the same normalised, float32.
        labels: ``(N,)`` int64; -1 where no class is known.
        names: of the photographs.

    Example:
        >>> photos = free_photographs(side=64)
        >>> photos.names[0], tuple(photos.images.shape[1:])
        ('cat', (3, 64, 64))
    """

    pixels: Tensor
    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def imagenet_photographs(side: int = 224) -> Photographs:
    """20 photographs of ImageNet with their classes (in the package foolbox, an extra).

    Args:
        side: of the square images.

    Raises:
        ModuleNotFoundError: foolbox is not installed; the message says how to.
    """
    folder = installed_folder(
        "foolbox", "data", needed_by="imagenet-photographs", extra="photos"
    )
    files = sorted(folder.glob("imagenet_*.jpg"))
    # The name of a file ends in its class.
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    names = tuple(f"{i:02d}" for i in range(len(files)))
    return _photographs([read_rgb(file) for file in files], labels, names, side)


def free_photographs(side: int = 224) -> Photographs:
    """Photographs in scikit-image and scikit-learn, free to show, without classes."""
    pixels = []
    for name in _OF_A_THING:
        package, *parts = PHOTOS[name]
        folder = installed_folder(package, needed_by="free photographs")
        pixels.append(read_rgb(folder.joinpath(*parts)))
    return _photographs(pixels, [-1] * len(pixels), _OF_A_THING, side)


def class_names() -> tuple[str, ...]:
    """ImageNet's class names by number; ``"class 17"`` where torchvision is missing.

    The name of a class is its first word or words in the list of that package.
    """
    try:
        file = installed_folder("torchvision", "models", needed_by="names of classes")
    except ModuleNotFoundError:
        return tuple(f"class {i}" for i in range(CLASSES))
    # The list alone: the whole package does not import beside every torch.
    spec = importlib.util.spec_from_file_location("_names", file / "_meta.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module._IMAGENET_CATEGORIES)


def prepared(pixels: np.ndarray, side: int = 224) -> Tensor:
    """A photograph as the middle square of ``side`` pixels, ``(3, side, side)`` uint8.

    The shorter side is resized to 256/224 of ``side`` first, bilinear with antialiasing,
    as torchvision's weights expect.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        side: at least 1.
    """
    from PIL import Image

    integer("prepared", "side", side)
    photo = Image.fromarray(pixels)
    around = round(side * _AROUND)
    ratio = around / min(photo.size)
    width, height = (max(around, round(ratio * s)) for s in photo.size)
    photo = photo.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _photographs(
    pixels: list[np.ndarray], labels: list[int], names: tuple[str, ...], side: int
) -> Photographs:
    squares = torch.stack([prepared(photo, side) for photo in pixels])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    images = (squares.float() / 255 - mean) / std
    return Photographs(squares, images, torch.tensor(labels), names)
