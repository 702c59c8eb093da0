"""What a data set is: images and labels in memory, split into training and test."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from elision.common.extras import check_installed
from elision.workloads.data.batches import Augmentation, batches
from elision.workloads.examples import Examples, held_out_places

__all__ = ["Dataset", "installed_folder", "needs_no_path", "to_images"]


@dataclass(frozen=True, eq=False)
class Dataset(Examples):
    """Labelled images, all of one size, split into training and test.

    Attributes:
        name: short name, as in the registry.
        train_images, test_images: ``(N, C, H, W)``, uint8 pixels.
        train_labels, test_labels: ``(N,)``, int64 in ``[0, classes)``.
        class_names: what the labels stand for.
        mean, std: per channel, in the unit of the pixels; :meth:`normalise` uses them.
        source: where the images come from.

    Raises:
        ValueError: shapes, dtypes or labels do not fit together.

    Example:
        >>> images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 2
        >>> Dataset(
        ...     "zeros", images, labels, images, labels, ("even", "odd"), (0.0,), (1.0,), "made"
        ... )
        Dataset('zeros', 4 + 4 images of 1x2x2, 2 classes)
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images = getattr(self, f"{split}_images")
            labels = getattr(self, f"{split}_labels")
            where = f"data set {self.name!r}, {split}"
            if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
                raise ValueError(
                    f"{where}: images must be uint8 of shape (N >= 1, C, H, W), "
                    f"got {images.dtype} {tuple(images.shape)}"
                )
            if images.shape[1:] != self.train_images.shape[1:]:
                raise ValueError(
                    f"{where}: images are {tuple(images.shape[1:])}, the training "
                    f"images {tuple(self.train_images.shape[1:])}"
                )
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{where}: {len(images)} images need as many int64 labels, "
                    f"got {labels.dtype} {tuple(labels.shape)}"
                )
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.classes:
                raise ValueError(
                    f"{where}: labels must be in [0, {self.classes}), "
                    f"found {low} to {high}"
                )
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ValueError(
                f"data set {self.name!r}: mean and std need one value for each of the "
                f"{self.in_channels} channels"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.train_images.shape[2], self.train_images.shape[3]

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 pixels to float32, ``(pixel - mean) / std`` per channel."""
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        return (images.to(torch.float32) - mean) / std

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        start: int = 0,
        augmentation: Augmentation | None = None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Normalised batches of one epoch of training; see :func:`batches`."""
        for images, labels in batches(
            self.train_images,
            self.train_labels,
            batch_size,
            seed=seed,
            epoch=epoch,
            start=start,
            augmentation=augmentation,
        ):
            yield self.normalise(images), labels

    def train_places(
        self, batch_size: int, *, seed: int, epoch: int
    ) -> Iterator[torch.Tensor]:
        """Places in the training data of each batch's images, ``(N,)``, int64.

        Example:
            >>> from elision.workloads import load_dataset
            >>> digits = load_dataset("digits")
            >>> places = next(digits.train_places(8, seed=0, epoch=0))
            >>> _, labels = next(digits.train_batches(8, seed=0, epoch=0))
            >>> bool((digits.train_labels[places] == labels).all())
            True
        """
        places = torch.arange(len(self.train_images))
        drawn = batches(places, places, batch_size, seed=seed, epoch=epoch)
        return (chosen for chosen, _ in drawn)

    def test_batches(
        self, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Normalised batches of the test images, in order."""
        for images, labels in zip(
            self.test_images.split(batch_size),
            self.test_labels.split(batch_size),
            strict=True,
        ):
            yield self.normalise(images), labels

    def limited(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """The same data set with at most ``train`` and ``test`` images; None keeps all.

        The images kept are spread evenly over the data set, so that one that is sorted
        by class stays balanced.
        """
        kept = _spread(len(self.train_images), train)
        tested = _spread(len(self.test_images), test)
        return replace(
            self,
            train_images=self.train_images[kept],
            train_labels=self.train_labels[kept],
            test_images=self.test_images[tested],
            test_labels=self.test_labels[tested],
        )

    def part(self, which: Sequence[int]) -> "Dataset":
        """The training images at these places, and all test images."""
        places = torch.as_tensor(which, dtype=torch.int64)
        return replace(
            self,
            train_images=self.train_images[places],
            train_labels=self.train_labels[places],
        )

    def held_out(self, share: float = 0.2) -> "Dataset":
        """Training images alone, some of them in place of the test images."""
        kept, held = held_out_places(len(self.train_images), share)
        return replace(
            self.part(kept),
            test_images=self.train_images[held],
            test_labels=self.train_labels[held],
        )

    def content(self) -> Iterable[bytes]:
        """Class names, normalisation, images and labels."""
        yield repr((self.class_names, self.mean, self.std)).encode()
        for values in (
            *(self.train_images, self.train_labels),
            *(self.test_images, self.test_labels),
        ):
            yield repr(tuple(values.shape)).encode()
            yield values.contiguous().numpy().tobytes()

    def __repr__(self) -> str:
        """Name and sizes, never the pixels."""
        channels, height, width = self.train_images.shape[1:]
        return (
            f"Dataset({self.name!r}, {len(self.train_images)} + "
            f"{len(self.test_images)} images of {channels}x{height}x{width}, "
            f"{self.classes} classes)"
        )


def _spread(size: int, count: int | None) -> slice | torch.Tensor:
    """Indices of ``count`` of ``size`` things at even distances."""
    if count is None or count >= size:
        return slice(None)
    return torch.arange(count) * size // count


def to_images(array: np.ndarray) -> torch.Tensor:
    """A writable uint8 tensor of its own from an array of images."""
    return torch.from_numpy(np.array(array, np.uint8))


def needs_no_path(name: str, path: Path | None) -> None:
    """Raise ValueError if a path was given for a data set that ships in a package."""
    if path is not None:
        raise ValueError(
            f"data set {name!r} ships in a package and takes no path, got {path}"
        )


def installed_folder(
    package: str, *parts: str, needed_by: str, extra: str = ""
) -> Path:
    """Folder of an installed package, found without importing the package.

    Args:
        package: its module.
        *parts: the folder's path in it.
        needed_by: what reads it, for the message.
        extra: the package comes with; none, if it comes with the library.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says so.
    """
    if extra:
        check_installed(package, extra, needed_by)
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{needed_by} needs {package}, which is not installed", name=package
        )
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)
