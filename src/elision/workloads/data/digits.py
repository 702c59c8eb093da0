"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, embedded."""

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

__all__ = ["load_digits"]

#: Every fifth image is a test image (own choice; the writers are not separated).
TEST_EVERY = 5


def load_digits(path: Path | None = None) -> Dataset:
    """1,797 handwritten digits, 1x8x8, pixels 0 to 16 (embedded)."""
    needs_no_path("digits", path)
    # The file itself: importing scikit-learn would take longer than reading it.
    folder = installed_folder("sklearn", "datasets", "data", needed_by="digits")
    with gzip.open(folder / "digits.csv.gz") as lines:
        table = np.loadtxt(lines, delimiter=",")
    images = to_images(table[:, :-1].reshape(-1, 1, 8, 8))
    targets = torch.from_numpy(table[:, -1].astype(np.int64))
    test = torch.arange(len(images)) % TEST_EVERY == 0
    return Dataset(
        name="digits",
        train_images=images[~test],
        train_labels=targets[~test],
        test_images=images[test],
        test_labels=targets[test],
        class_names=tuple("0123456789"),
        # Mean and standard deviation of all pixels of the training images.
        mean=(4.89,),
        std=(6.02,),
        source="scikit-learn: UCI optical recognition of handwritten digits",
    )
