"""Digits kept as a gzipped table: a row an image, its pixels and then its label."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elision.workloads.data.base import Dataset, to_images

__all__ = ["TEST_EVERY", "read_digits"]

#: Every fifth image is a test image (own choice).
TEST_EVERY = 5


def read_digits(file: Path, side: int, **facts: Any) -> Dataset:
    """The data set of a table of square grey digits.

    Args:
        file: ``.csv.gz`` with ``side * side`` pixels and a label in each row.
        side: height and width of an image.
        **facts: the data set's name, mean, standard deviation and source.
    """
    with gzip.open(file) as lines:
        table = np.loadtxt(lines, delimiter=",")
    images = to_images(table[:, :-1].reshape(-1, 1, side, side))
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    test = torch.arange(len(images)) % TEST_EVERY == 0
    return Dataset(
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple("0123456789"),
        **facts,
    )
