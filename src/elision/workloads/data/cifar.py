"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from a folder, binary or Python version.

Binary version: records of the label bytes (CIFAR-10: one; CIFAR-100: coarse and fine)
and 3,072 pixels. Python version: pickled dictionaries, read by an unpickler that can
build arrays of bytes and plain values and nothing else, so that a hostile file cannot
run code, and that meets no tuple or list twice, so that a small one cannot stand for a
structure without end.
"""

import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

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
            but arrays of bytes and plain values.
    """
    try:
        raw = file.read_bytes()
        _check_tree(raw)
        content = BytesUnpickler(BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise ValueError(f"{file}: not a CIFAR batch ({error})") from error
    fields = content if isinstance(content, dict) else {}
    fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in fields.items()}
    data, labels = fields.get("data"), fields.get(label_key)
    images: np.ndarray = data.values if isinstance(data, ByteArray) else np.empty(0)
    if (
        images.ndim != 2
        or images.shape[1] != PIXELS
        or not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(type(label) is int and 0 <= label < 256 for label in labels)
    ):
        raise ValueError(
            f"{file}: not a CIFAR batch (it must hold 'data', uint8 of shape "
            f"(N, {PIXELS}), and {label_key!r}, N integers from 0 to 255)"
        )
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


#: Steps of a pickle whose result holds nothing else: texts, bytes, numbers, and what is
#: called by name.
_LEAVES = ("UNICODE", "STRING", "BYTES", "INT", "LONG", "GLOBAL", "REDUCE")
#: Steps that keep the last result, and that bring one back.
_KEEPS, _BRINGS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


def _check_tree(raw: bytes) -> None:
    """Refuse a pickle that uses a tuple, a list or a dictionary twice.

    Raises:
        pickle.UnpicklingError: it does; pickles of arrays of bytes do not.
    """
    leaves: dict[Any, bool] = {}
    before = ""
    for code, argument, _ in pickletools.genops(raw):
        if code.name in (*_KEEPS, "MEMOIZE"):
            place = len(leaves) if code.name == "MEMOIZE" else argument
            kept = before not in (*_KEEPS, *_BRINGS)
            leaves[place] = kept and any(leaf in before for leaf in _LEAVES)
        elif code.name == "DUP" or (
            code.name in _BRINGS and not leaves.get(argument, False)
        ):
            raise pickle.UnpicklingError("it uses a part twice")
        before = code.name


class ByteType:
    """Stands for numpy's dtype while a pickle is read: unsigned bytes or nothing."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            said = repr(code) if isinstance(code, (str, bytes)) else "of no name"
            raise pickle.UnpicklingError(f"it has values of type {said}, not bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which a byte does not have."""


class ByteArray:
    """Stands for a numpy array of bytes while a pickle is read."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, _, column_major, raw = state
        self._set(raw, shape, "F" if column_major else "C")

    @classmethod
    def from_buffer(cls, raw: Any, _: ByteType, shape: Any, order: Any) -> "ByteArray":
        """How protocol 5 spells an array."""
        made = cls()
        made._set(raw, shape, order)
        return made

    def _set(self, raw: Any, shape: Any, order: Literal["C", "F"]) -> None:
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order=order)


class Latin1:
    """How protocols 0 to 2 of Python 3 spell bytes: a string and its encoding.

    A class without a dictionary, since a pickle may set attributes of what it is handed.
    """

    __slots__ = ()

    def __new__(cls, text: str, _: str) -> bytes:  # pyright: ignore[reportInconsistentConstructor]
        """The bytes."""
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        """Nothing, whoever calls."""


#: Every global that a pickled array of bytes names, and what it becomes here: numpy
#: itself is handed nothing but bytes and a shape, which it checks against each other.
_ALLOWED = {
    ("numpy", "ndarray"): ByteArray,
    ("numpy", "dtype"): ByteType,
    ("_codecs", "encode"): Latin1,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = ByteArray
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = ByteArray.from_buffer


class BytesUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays of bytes and plain values, and no other object."""

    def find_class(self, module: str, name: str) -> Any:
        """The few globals that an array names; everything else is refused.

        Raises:
            pickle.UnpicklingError: the pickle names another global.
        """
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")


def _class_names(file: Path, classes: int) -> tuple[str, ...]:
    """The names beside the binary version; numbers where there is no such file."""
    if file.is_file():
        names = tuple(file.read_text(encoding="utf-8").split())
        if len(names) == classes:
            return names
    return tuple(str(i) for i in range(classes))
