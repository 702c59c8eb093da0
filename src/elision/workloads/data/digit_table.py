"""Digits kept as a gzipped table: a row an image, its pixels and then its label."""

import gzip
import zlib
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elision.common.files import taken_apart
from elision.workloads.data.base import Dataset, to_images

__all__ = ["TEST_EVERY", "read_digits"]

#: Every fifth image is a test image (own choice).
TEST_EVERY = 5


#: Bytes that a table may inflate to (an own choice; the largest here has 9.3 million).
_MOST_BYTES = 64 * 2**20


def read_digits(file: Path, side: int, **facts: Any) -> Dataset:
    """The data set of a table of square grey digits.

    Args:
        file: ``.csv.gz`` with ``side * side`` pixels and a label in each row.
        side: height and width of an image.
        **facts: the data set's name, mean, standard deviation and source.

    Raises:
        ValueError: the file is no such table.
    """
    with taken_apart(file, "not a table of digits"):
        table = np.loadtxt(StringIO(_unzipped(file)), delimiter=",", ndmin=2)
        if table.shape[1] != side * side + 1 or not np.isfinite(table).all():
            raise ValueError(f"it has {table.shape[1]} numbers in a row")
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


def _unzipped(file: Path) -> str:
    """The text in a gzip file; one that inflates to too much is refused."""
    try:
        with gzip.open(file) as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file ({error})") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it inflates to more than {_MOST_BYTES} bytes")
    return content.decode("ascii")
