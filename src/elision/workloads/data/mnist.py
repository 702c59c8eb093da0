"""MNIST and Fashion-MNIST from IDX files (yann.lecun.com's format), plain or gzipped.

An IDX file is big-endian: two zero bytes, a byte that names the element type (0x08:
unsigned byte), a byte with the number of dimensions, the dimensions as 32-bit integers,
then the elements.
"""

import gzip
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch

from elision.workloads.data.base import Dataset, to_images

__all__ = ["load_fashion_mnist", "load_mnist", "read_idx"]

#: Where Debian's package dataset-fashion-mnist puts its files.
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


#: A gzip file that would inflate to more bytes than this many times its own is refused,
#: beyond some bytes (an own choice; MNIST's images inflate to 5 times theirs).
_MOST_RATIO, _LEAST_MOST_BYTES = 100, 64 * 2**20


def load_mnist(path: Path | None = None) -> Dataset:
    """MNIST, 60,000 + 10,000 digits 1x28x28, from a folder of IDX files."""
    if path is None:
        raise ValueError(
            "data set 'mnist' needs a path: a folder with train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            "t10k-labels-idx1-ubyte, plain or .gz"
        )
    # Mean and standard deviation of the training pixels, 0.1307 and 0.3081 of 255.
    return _load("mnist", path, tuple("0123456789"), (33.3,), (78.6,))


def load_fashion_mnist(path: Path | None = None) -> Dataset:
    """Fashion-MNIST, 60,000 + 10,000 garments 1x28x28, from a folder of IDX files."""
    # Mean and standard deviation of the training pixels, 0.2860 and 0.3530 of 255.
    constants = (FASHION_CLASSES, (72.9,), (90.0,))
    return _load("fashion-mnist", path or DEBIAN_FOLDER, *constants)


def _load(
    name: str,
    folder: Path,
    class_names: tuple[str, ...],
    mean: tuple[float],
    std: tuple[float],
) -> Dataset:
    arrays: dict[str, torch.Tensor] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = _find(name, folder, f"{prefix}-images-idx3-ubyte")
        labels = _find(name, folder, f"{prefix}-labels-idx1-ubyte")
        arrays[f"{split}_images"] = to_images(read_idx(images, 3)[:, None])
        arrays[f"{split}_labels"] = torch.from_numpy(
            read_idx(labels, 1).astype(np.int64)
        )
    return Dataset(
        name=name,
        **arrays,
        class_names=class_names,
        mean=mean,
        std=std,
        source=f"IDX files in {folder}",
    )


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Returns:
        uint8 array with the shape that the header gives.

    Raises:
        ValueError: the file is not an IDX file of bytes with that many dimensions, or
            its length is not what its header says; the message names the file.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            return _read_idx(stream, file, dimensions)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: not a whole gzip file ({error})") from error


def _read_idx(stream: BufferedIOBase, file: Path, dimensions: int) -> np.ndarray:
    magic = bytes((0, 0, 8, dimensions))
    header = 4 + 4 * dimensions
    head = stream.read(header)
    if head[:4] != magic or len(head) < header:
        raise ValueError(
            f"{file}: not an IDX file of bytes with {dimensions} dimensions "
            f"(it must start with {magic.hex()}, found {head[:4].hex() or 'nothing'})"
        )
    shape = [int(side) for side in np.frombuffer(head, ">u4", offset=4)]
    promised = math.prod(shape)
    most = max(_LEAST_MOST_BYTES, _MOST_RATIO * file.stat().st_size)
    if promised > most:
        raise ValueError(
            f"{file}: the header promises {promised} bytes ({tuple(shape)}), which its "
            f"{file.stat().st_size} bytes cannot hold"
        )
    raw = stream.read(promised + 1)
    if len(raw) != promised:
        found = f"more than {promised}" if len(raw) > promised else str(len(raw))
        raise ValueError(
            f"{file}: the header promises {promised} bytes of values ({tuple(shape)}), "
            f"the file has {found}: is it cut short?"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _find(name: str, folder: Path, stem: str) -> Path:
    """The file, plain or gzipped; also under the name with a dot before ``idx``."""
    dotted = stem.replace("-idx", ".idx")
    for candidate in (stem, f"{stem}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    debian = (
        " (on Debian: apt install dataset-fashion-mnist)"
        if name == "fashion-mnist"
        else ""
    )
    raise FileNotFoundError(
        f"data set {name!r}: no {stem} or {stem}.gz in {folder}; give the folder that "
        f"holds the four IDX files as path{debian}"
    )
