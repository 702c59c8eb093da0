"""Data sets to study, one file each, and the registry that names them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elision.common import objects
from elision.common.names import lookup
from elision.workloads.data.base import Dataset
from elision.workloads.data.batch_efficiency import BatchEfficiency, batch_efficiency
from elision.workloads.data.batches import Augmentation, batches
from elision.workloads.data.buckets import GlobalBuckets, LocalBuckets, RandomBatches
from elision.workloads.data.cifar import load_cifar10, load_cifar100
from elision.workloads.data.digits import load_digits
from elision.workloads.data.folder import load_folder
from elision.workloads.data.mnist import load_fashion_mnist, load_mnist
from elision.workloads.data.mnist5k import load_mnist5k
from elision.workloads.data.photo_patches import load_photo_patches
from elision.workloads.examples import Examples
from elision.workloads.text.loaders import (
    load_english_verses,
    load_pairs,
    load_sentences,
    load_verses,
)

__all__ = [
    "DATASETS",
    "Augmentation",
    "BatchEfficiency",
    "Dataset",
    "GlobalBuckets",
    "LocalBuckets",
    "RandomBatches",
    "batch_efficiency",
    "batches",
    "load_dataset",
]

#: Names by which the command line knows the data sets. The first line of a loader's
#: docstring says what it loads and whether it needs a path.
DATASETS: dict[str, Callable[..., Examples]] = {
    "photo-patches": load_photo_patches,
    "digits": load_digits,
    "mnist-5k": load_mnist5k,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "folder": load_folder,
    "verses": load_verses,
    "pairs": load_pairs,
    "verses-english": load_english_verses,
    "sentences": load_sentences,
}


def load_dataset(name: str, path: str | Path | None = None, **options: Any) -> Any:
    """Load a data set by name; nothing is ever downloaded.

    It is a :class:`Dataset` of images, or other :class:`elision.workloads.Examples`.

    Args:
        name: a name of :data:`DATASETS`, or ``package.module:NAME`` for a function of
            your own that takes the path, or None, and returns a :class:`Dataset`
            or other :class:`elision.workloads.Examples`.
        path: folder with its files, for the data sets that do not ship in a package.
        **options: further arguments of the loader, such as ``side`` of ``folder``.

    Raises:
        ValueError: the name or an option is unknown, a needed path is missing (the
            message says what to put there), or a file is not what it should be.
        FileNotFoundError: the folder lacks a file; the message names it.
        ModuleNotFoundError: the package that ships the data is not installed.
    """
    if ":" in name:
        loader = objects.maker("data set", name)
    else:
        loader = lookup("data set", name, DATASETS)
        known = [p for p in inspect.signature(loader).parameters if p != "path"]
        for option in options:
            lookup(f"option of data set {name!r}", option, dict.fromkeys(known))
    place = None if path is None else Path(path).expanduser()
    try:
        found = loader(place, **options)
    except (
        TypeError
    ) as error:  # arguments that a loader of the user's own does not take
        raise ValueError(f"data set {name!r}: {error}") from error
    if not isinstance(found, Examples):
        raise ValueError(
            f"data set {name!r}: must return a Dataset, it returned a "
            f"{type(found).__name__}"
        )
    return found
