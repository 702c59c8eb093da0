"""Pickles that were made to do harm where a CIFAR batch is expected."""

import pickle

import numpy as np

__all__ = ["HOSTILE"]


def _calling(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls a function when it is read."""
    quoted = argument.encode("unicode-escape")
    return f"c{module}\n{name}\n(V".encode() + quoted + b"\ntR."


def _batch(label: int) -> dict[str, object]:
    """A batch of one image with a label."""
    return {"data": np.zeros((1, 3072), np.uint8), "labels": [label]}


def _nested() -> bytes:
    """A tuple of two tuples of two, 40 levels deep: small, and without end to a reader."""
    nested: tuple[object, ...] = ()
    for _ in range(40):
        nested = nested, nested
    return pickle.dumps(nested, protocol=2)[2:-1]


_BEGIN = pickle.PROTO + b"\x02"

#: Each would end the process, or go on for years, if it were read as pickle reads.
HOSTILE = (
    _calling("os", "abort", "").replace(b"(V\nt", b"(t"),
    _calling("posix", "system", "kill -9 $PPID"),
    _calling("builtins", "exec", "import os; os.abort()"),
    _calling("builtins", "eval", "__import__('os').abort()"),
    _calling("numpy", "ndarray.__class__", "x"),
    _calling("numpy.core.multiarray", "scalar", "x"),
    pickle.PROTO + b"\x04\x8e" + (10**12).to_bytes(8, "little") + b"x.",
    pickle.PROTO + b"\x02Nr" + (2**32 - 2).to_bytes(4, "little") + b".",
    pickle.PROTO + b"\x02c_codecs\nencode\nN}(X\x0c\x00\x00\x00__defaults__)u\x86b.",
    b"(" * 100_000,
    b"](" * 100_000 + b"." * 10,
    _BEGIN + b"}" + _nested() + b"Ns.",  # a key, to be hashed
    _BEGIN + b"cnumpy\ndtype\n" + _nested() + b"\x85R.",  # a type, to be quoted
    pickle.dumps(_batch(10**40), protocol=2),
)
