"""Classification of images: cross-entropy, and the share classified rightly."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.workloads.data import Augmentation, Dataset
from elision.workloads.models import MODELS
from elision.workloads.tasks.base import Batch, Metric, Task

__all__ = ["Classification"]


class Classification(Task):
    """Images ``(N, C, H, W)`` in, one of ``classes`` out; loss: cross-entropy.

    Example:
        >>> images = torch.eye(3).view(3, 1, 1, 3)
        >>> task, model = Classification(), nn.Flatten()
        >>> task.evaluate(model, [(images, torch.tensor([0, 1, 1]))])
        0.6666666666666666
    """

    metric = Metric("test_accuracy", percent=True)
    examples = Dataset
    networks = MODELS

    def model_arguments(self, dataset: Dataset) -> dict[str, Any]:
        """Channels, number of classes, height and width."""
        return {
            "in_channels": dataset.in_channels,
            "classes": dataset.classes,
            "image_size": dataset.image_size,
        }

    def train_size(self, dataset: Dataset) -> int:
        """Number of training images."""
        return len(dataset.train_images)

    def train_batches(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        augmentation: Augmentation | None = None,
    ) -> Iterator[Batch]:
        """Normalised images and labels; see :meth:`Dataset.train_batches`."""
        return dataset.train_batches(
            batch_size, seed=seed, epoch=epoch, augmentation=augmentation
        )

    def train_places(
        self, dataset: Dataset, batch_size: int, *, seed: int, epoch: int
    ) -> Iterator[Tensor]:
        """Places of each batch's images; see :meth:`Dataset.train_places`."""
        return dataset.train_places(batch_size, seed=seed, epoch=epoch)

    def class_scores(self, answer: Tensor, batch: Batch) -> Tensor:
        """The answer as it is: scores ``(N, classes)``."""
        del batch
        return answer

    def test_batches(self, dataset: Dataset, batch_size: int) -> Iterator[Batch]:
        """Normalised test images and labels, in order."""
        return dataset.test_batches(batch_size)

    def check_output(self, output: Any, dataset: Dataset) -> None:
        """Scores: a tensor ``(N, classes)``."""
        wanted = f"must answer with scores of {dataset.classes} classes, (N, classes)"
        if not isinstance(output, Tensor):
            raise ValueError(f"{wanted}; it gave a {type(output).__name__}")
        if output.ndim != 2 or output.shape[1] != dataset.classes:
            raise ValueError(f"{wanted}; it gave {tuple(output.shape)}")

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def counts(self, model: nn.Module, batch: Batch) -> Tensor:
        """Images classified rightly, or NaN if a score is NaN, and images."""
        images, labels = batch
        scores = model(images)
        right = float((scores.argmax(1) == labels).sum())
        if scores.isnan().any():  # a NaN is the largest score, and class 0 often right
            right = math.nan
        return torch.tensor([right, len(labels)], dtype=torch.float64)

    def score(self, counts: Tensor) -> float:
        """Share classified rightly, in [0, 1], or NaN."""
        right, images = counts.tolist()
        return right / images
