"""Batches whose order and augmentation depend on nothing but (seed, epoch).

All random draws of an epoch are made before its first batch, from a generator of their
own: a run resumed in the middle of an epoch sees the bits it would have seen, and the
global generator of torch is not touched.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["Augmentation", "batches"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The usual light augmentation of small images (He et al. 2016, section 4.2).

    Attributes:
        padding: pixels of zeros on each side before a crop of the original size at a
            random place.
        flip: mirror each image left to right with probability one half.

    Example:
        >>> images = torch.ones(8, 1, 6, 6, dtype=torch.uint8)
        >>> varied = Augmentation(padding=2, flip=False)
        >>> batch, labels = next(
        ...     batches(images, torch.arange(8), 4, seed=0, epoch=0, augmentation=varied)
        ... )
        >>> batch.shape, labels.shape
        (torch.Size([4, 1, 6, 6]), torch.Size([4]))
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int):
            raise ValueError(f"padding must be an integer, got {self.padding!r}")
        if self.padding < 0:
            raise ValueError(f"padding must be >= 0, got {self.padding}")


def batches(
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    augmentation: Augmentation | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one epoch of shuffled batches; the last one may be smaller.

    Args:
        images: ``(N, C, H, W)``, any dtype.
        labels: ``(N,)``.
        batch_size: images in a batch.
        seed: together with ``epoch`` decides the order and the augmentation.
        epoch: number of the epoch.
        start: first batch to yield; the ones before it are skipped at no cost.
        augmentation: how to vary the images; None leaves them as they are.

    Raises:
        ValueError: a number is out of range, or images and labels differ in number.
    """
    for name, value, minimum in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("epoch", epoch, 0),
        ("start", start, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}")
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    return _batches(images, labels, batch_size, seed, epoch, start, augmentation)


def _batches(
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int,
    augmentation: Augmentation | None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    # SeedSequence mixes the two numbers, so that (0, 1) and (1, 0) are unrelated.
    state = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    generator = torch.Generator().manual_seed(state)
    count = len(images)
    order = torch.randperm(count, generator=generator)
    span = 2 * augmentation.padding + 1 if augmentation else 1
    corners = torch.randint(span, (count, 2), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    for first in range(start * batch_size, count, batch_size):
        chosen = order[first : first + batch_size]
        batch = images[chosen]
        if augmentation is not None:
            place = slice(first, first + batch_size)
            flips = mirrored[place] if augmentation.flip else None
            batch = _vary(batch, augmentation.padding, corners[place], flips)
        yield batch, labels[chosen]


def _vary(
    images: torch.Tensor,
    padding: int,
    corners: torch.Tensor,
    flips: torch.Tensor | None,
) -> torch.Tensor:
    """Crop every padded image at its corner (row, column), then mirror some."""
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = corners[:, :1] + torch.arange(height)
    columns = corners[:, 1:] + torch.arange(width)
    if flips is not None:
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    image = torch.arange(n)[:, None, None]
    # Advanced indices around a slice put their own axes first: (N, H, W, C).
    return (
        padded[image, :, rows[:, :, None], columns[:, None, :]]
        .permute(0, 3, 1, 2)
        .contiguous()
    )
