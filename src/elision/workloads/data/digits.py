"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, embedded."""

from pathlib import Path

from elision.workloads.data.base import Dataset, installed_folder, needs_no_path
from elision.workloads.data.digit_table import read_digits

__all__ = ["load_digits"]


def load_digits(path: Path | None = None) -> Dataset:
    """1,797 handwritten digits, 1x8x8, pixels 0 to 16 (embedded).

    Training and test images share writers, whom the table does not tell apart.
    """
    needs_no_path("digits", path)
    # The file itself: importing scikit-learn would take longer than reading it.
    folder = installed_folder(
        "sklearn", "datasets", "data", needed_by="data set digits"
    )
    return read_digits(
        folder / "digits.csv.gz",
        side=8,
        name="digits",
        # Mean and standard deviation of all pixels of the training images.
        mean=(4.89,),
        std=(6.02,),
        source="scikit-learn: UCI optical recognition of handwritten digits",
    )
