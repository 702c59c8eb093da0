"""Kinds of files of data sets: images, tables, sentences, and the folders they lie in."""

import gzip
import pickle
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from campaigns.mutate import changed_bytes
from campaigns.poison.forms import TEXT, or_one_of, unzipped
from campaigns.poison.hostile_pickles import HOSTILE
from campaigns.poison.kind import Kind, in_process

__all__ = ["KINDS"]


def _idx_bomb() -> bytes:
    """A gzip file of a few MB that inflates to 4 GB, with an IDX head."""
    head = b"\0\0\x08\x03" + (2**32 // 784).to_bytes(4, "big") + b"\0\0\0\x1c" * 2
    return gzip.compress(head) + gzip.compress(b"\0" * 2**26, 9) * 64


def _table_bomb() -> bytes:
    """A gzip file of a few MB that inflates to 4 GB, one row that does not end."""
    return gzip.compress(b"1," * 2**25, 9) * 64


def _png(width: int, height: int, rows: int) -> bytes:
    """A PNG whose head promises a size, with some rows of grey pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(width + 1) * rows, 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


#: Sizes beyond, at and just below the size at which Pillow refuses or warns.
_IMAGE_BOMBS = (
    _png(100_000, 100_000, 16),
    _png(2**31 - 1, 2**31 - 1, 0),
    _png(18_000, 9_900, 1000),
    _png(13_000, 13_000, 13_000),
    _png(9_000, 9_000, 9_000),
)


def _idx(folder: Path) -> None:
    drawn = random.Random(0)
    for part, images in (("train", 20), ("t10k", 10)):
        head = b"\0\0\x08\x03" + images.to_bytes(4, "big") + b"\0\0\0\x1c" * 2
        pixels = gzip.compress(head + drawn.randbytes(images * 784), 1)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(pixels)
        head = b"\0\0\x08\x01" + images.to_bytes(4, "big")
        labels = gzip.compress(head + bytes(i % 10 for i in range(images)), 1)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(labels)


def _cifar(folder: Path) -> None:
    drawn = random.Random(0)
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        rows = b"".join(bytes([i]) + drawn.randbytes(3072) for i in range(4))
        (folder / name).write_bytes(rows)
    names = "\n".join(f"class{i}" for i in range(10))
    (folder / "batches.meta.txt").write_text(names, encoding="utf-8")


def _cifar_pickled(folder: Path) -> None:
    import numpy as np

    drawn = random.Random(0)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        pixels = np.frombuffer(drawn.randbytes(4 * 3072), np.uint8).reshape(4, 3072)
        content = {"data": pixels, "labels": list(range(4)), "batch_label": name}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def _images(folder: Path) -> None:
    from PIL import Image

    drawn = random.Random(0)
    for part in ("train", "test"):
        for label in ("cats", "dogs"):
            place = folder / part / label
            place.mkdir(parents=True)
            for number in range(2):
                image = Image.frombytes("RGB", (8, 8), drawn.randbytes(192))
                image.save(place / f"{number}.png")


def _load(dataset: str) -> Callable[[Path], str]:
    def load(folder: Path) -> str:
        from elision.workloads.data import load_dataset

        found = load_dataset(dataset, folder)
        return str(float(found.train_images.float().sum()))

    return load


def _digits(folder: Path) -> None:
    drawn = random.Random(0)
    rows = [[drawn.randrange(16) for _ in range(16)] + [i % 10] for i in range(20)]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "digits.csv.gz").write_bytes(gzip.compress(text.encode(), 1))


def _read_digits(folder: Path) -> str:
    from elision.workloads.data.digit_table import read_digits

    facts = {"name": "digits", "mean": (1.0,), "std": (1.0,), "source": "here"}
    found = read_digits(folder / "digits.csv.gz", side=4, **facts)
    return str(float(found.train_images.float().sum()))


def _sentences(folder: Path) -> None:
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
    ]
    lines = [f"{a} {b}\t{b} {a}" for a in words for b in words]
    (folder / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")


def _read_sentences(folder: Path) -> str:
    from elision.workloads.text import read_pairs, read_sentences

    path = folder / "pairs.tsv"
    return f"{read_pairs(path)!r} {read_sentences(path, size=60)!r}"


KINDS = (
    Kind(
        "idx",
        _idx,
        ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        in_process(_load("mnist")),
        (unzipped(changed_bytes, _idx_bomb()),),
    ),
    Kind(
        "cifar",
        _cifar,
        ("data_batch_2.bin", "batches.meta.txt"),
        in_process(_load("cifar10")),
        (changed_bytes,),
    ),
    Kind(
        "pickled cifar",
        _cifar_pickled,
        ("data_batch_2",),
        in_process(_load("cifar10")),
        (or_one_of(HOSTILE),),
    ),
    Kind(
        "image",
        _images,
        ("train/cats/0.png", "test/dogs/1.png"),
        in_process(_load("folder")),
        (or_one_of(_IMAGE_BOMBS, 0.1),),
    ),
    Kind(
        "table of digits",
        _digits,
        ("digits.csv.gz",),
        in_process(_read_digits),
        (unzipped(changed_bytes, _table_bomb()),),
    ),
    Kind("sentences", _sentences, ("pairs.tsv",), in_process(_read_sentences), TEXT),
)
