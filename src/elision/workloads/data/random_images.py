"""Random images in the shape of a data set, for what depends on shapes alone."""

import torch

from elision.common.checks import integer
from elision.common.names import lookup
from elision.workloads.data.base import Dataset

__all__ = ["SHAPES", "random_images"]

#: Classes, channels, height and width of the data sets that need files.
SHAPES: dict[str, tuple[int, int, int, int]] = {
    "cifar10": (10, 3, 32, 32),
    "cifar100": (100, 3, 32, 32),
    "mnist": (10, 1, 28, 28),
    "fashion-mnist": (10, 1, 28, 28),
}


def random_images(name: str, count: int, seed: int = 0) -> Dataset:
    """Random images and labels with the shapes of a data set, and not its content.

    Args:
        name: a key of :data:`SHAPES`.
        count: images of each split.
        seed: of pixels and labels.

    Raises:
        ValueError: an unknown name, or a count below 1.

    Example:
        >>> random_images("mnist", 4)
        Dataset('mnist, random', 4 + 4 images of 1x28x28, 10 classes)
    """
    classes, *shape = lookup("data set with a known shape", name, SHAPES)
    integer("random_images", "count", count)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(classes, (count,), generator=generator)
    return Dataset(
        name=f"{name}, random",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        class_names=tuple(map(str, range(classes))),
        mean=(127.5,) * shape[0],
        std=(64.0,) * shape[0],
        source="random",
    )
