"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, embedded."""

from pathlib import Path

import numpy as np
import torch

from elision.workloads.data.base import Dataset, needs_no_path, to_images

__all__ = ["load_digits"]

#: Every fifth image is a test image (own choice; the writers are not separated).
TEST_EVERY = 5


def load_digits(path: Path | None = None) -> Dataset:
    """1,797 handwritten digits, 1x8x8, pixels 0 to 16 (embedded)."""
    needs_no_path("digits", path)
    # Imported here: scikit-learn's data sets take half a second to import.
    from sklearn.datasets import load_digits as sklearn_digits

    pixels, labels = sklearn_digits(return_X_y=True)
    images = to_images(pixels.reshape(-1, 1, 8, 8))
    targets = torch.from_numpy(labels.astype(np.int64))
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
