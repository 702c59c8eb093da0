"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from a folder, binary or Python version.

Binary version: records of the label bytes (CIFAR-10: one; CIFAR-100: coarse and fine)
and 3,072 pixels. Python version: pickled dictionaries, read by an unpickler that can
build numpy arrays and plain values and nothing else, so that a hostile file cannot run
code.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elision.workloads.data.base import Dataset, to_images

__all__ = ["load_cifar10", "load_cifar100", "read_binary", "read_python"]

#: Values of one image, 3 x 32 x 32.
PIXELS = 3072


@dataclass(frozen=True)
class Layout:
    """What the files of one of the two data sets are called and hold."""

    name: str
    classes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    label_key: str
    names_file: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Constants: per-channel mean and standard deviation of the training pixels as used by
# most published code (0.4914, ... of 255), rounded to a tenth.
CIFAR10 = Layout(
    name="cifar10",
    classes=10,
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    label_bytes=1,
    label_key="labels",
    names_file="batches.meta.txt",
    mean=(125.3, 123.0, 113.9),
    std=(63.0, 62.1, 66.7),
)
CIFAR100 = Layout(
    name="cifar100",
    classes=100,
    train=("train",),
    test=("test",),
    label_bytes=2,
    label_key="fine_labels",
    names_file="fine_label_names.txt",
    mean=(129.3, 124.1, 112.4),
    std=(68.2, 65.4, 70.4),
)


def load_cifar10(path: Path | None = None) -> Dataset:
    """CIFAR-10, 50,000 + 10,000 images 3x32x32, from a folder (binary or Python)."""
    return _load(CIFAR10, path)


def load_cifar100(path: Path | None = None) -> Dataset:
    """CIFAR-100, 50,000 + 10,000 images 3x32x32, from a folder (binary or Python)."""
    return _load(CIFAR100, path)


def _load(layout: Layout, path: Path | None) -> Dataset:
    wanted = (*layout.train, *layout.test)
    if path is None:
        raise ValueError(
            f"data set {layout.name!r} needs a path: the unpacked folder of its binary "
            f"version ({', '.join(f'{w}.bin' for w in wanted)}) or of its Python "
            f"version (the same names without .bin)"
        )
    binary = (path / f"{wanted[0]}.bin").is_file()
    files = {w: path / (f"{w}.bin" if binary else w) for w in wanted}
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(
                f"data set {layout.name!r}: no {file.name} in {path}; give the folder "
                f"with {', '.join(wanted)} (or the same with .bin) as path"
            )

    def read(names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [
            read_binary(files[n], layout.label_bytes)
            if binary
            else read_python(files[n], layout.label_key)
            for n in names
        ]
        images = np.concatenate([p[0] for p in parts])
        labels = np.concatenate([p[1] for p in parts])
        return to_images(images), torch.from_numpy(labels)

    train_images, train_labels = read(layout.train)
    test_images, test_labels = read(layout.test)
    return Dataset(
        name=layout.name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=_class_names(path / layout.names_file, layout.classes),
        mean=layout.mean,
        std=layout.std,
        source=f"{'binary' if binary else 'Python'} files in {path}",
    )


def read_binary(file: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 3, 32, 32)`` uint8 and labels (the last label byte) ``(N,)`` int64.

    Raises:
        ValueError: the file is empty or not a whole number of records.
    """
    raw = np.fromfile(file, np.uint8)
    record = label_bytes + PIXELS
    if raw.size == 0 or raw.size % record:
        raise ValueError(
            f"{file}: {raw.size} bytes are not a whole number of records of {record} "
            f"bytes: is it cut short?"
        )
    records = raw.reshape(-1, record)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return images, records[:, label_bytes - 1].astype(np.int64)


def read_python(file: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` int64 of a pickled batch.

    Raises:
        ValueError: the file is not such a pickle, is cut short, or asks for anything
            but numpy arrays and plain values.
    """
    try:
        with file.open("rb") as stream:
            content = ArrayUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise ValueError(f"{file}: not a CIFAR batch ({error})") from error
    fields = content if isinstance(content, dict) else {}
    fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in fields.items()}
    images, labels = fields.get("data"), fields.get(label_key)
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 2
        or images.shape[1] != PIXELS
        or not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(type(label) is int for label in labels)
    ):
        raise ValueError(
            f"{file}: not a CIFAR batch (it must hold 'data', uint8 of shape "
            f"(N, {PIXELS}), and {label_key!r}, N integers)"
        )
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows numpy arrays of plain numbers and no other object."""

    def find_class(self, module: str, name: str) -> Any:
        """The few globals that an array needs; everything else is refused.

        Raises:
            pickle.UnpicklingError: the pickle names another global.
        """
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")


def _empty_array(subtype: type, shape: Any, dtype: Any) -> np.ndarray:
    """What numpy's ``_reconstruct`` does for a plain array: the state comes later."""
    return np.ndarray((0,), np.uint8)


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 of Python 3 spells bytes: a string and its encoding."""
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("_codecs", "encode"): _latin1,
}


def _class_names(file: Path, classes: int) -> tuple[str, ...]:
    """The names beside the binary version; numbers where there is no such file."""
    if file.is_file():
        names = tuple(file.read_text(encoding="utf-8").split())
        if len(names) == classes:
            return names
    return tuple(str(i) for i in range(classes))
