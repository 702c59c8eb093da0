"""Kinds of files in caches, and of packed tensors in memory."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaigns.mutate import changed_bytes, changed_text
from campaigns.poison.forms import json_text
from campaigns.poison.kind import Kind, in_process, made

__all__ = ["KINDS"]


def _choices(folder: Path) -> None:
    from elision.engines.decision import Decision, Decisions

    kept = Decisions(folder / "decisions.json")
    kept.add(Decision("forward of fc", {"torch": 0.003, "native": 0.001}))
    kept.add(Decision("forward of conv", {"torch": 0.002}, dense=0.004))


def _read_choices(folder: Path) -> str:
    from elision.engines.decision import Decision, Decisions

    kept = Decisions(folder / "decisions.json")
    kept.add(Decision("another", {"torch": 0.003}))
    return " ".join(decision.winner for decision in kept)


def _library(folder: Path) -> None:
    """The kernels as a cache holds them."""
    made("library", _built, folder)


_SOURCE = 'extern "C" int elision_one() { return 1; }\n'


def _built(folder: Path) -> None:
    with _cache(folder):
        from elision.native.builder import build_text

        build_text(_SOURCE)


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("ELISION_CACHE")
    os.environ["ELISION_CACHE"] = str(folder)
    folder.chmod(0o700)
    try:
        yield
    finally:
        os.environ.pop("ELISION_CACHE")
        if before is not None:
            os.environ["ELISION_CACHE"] = before


def _read_library(folder: Path) -> str:
    import ctypes

    with _cache(folder), contextlib.redirect_stderr(io.StringIO()):
        from elision.native.builder import build_text

        path = build_text(_SOURCE)
    return str(ctypes.CDLL(str(path)).elision_one())


_MODULE = """from elision.common.machine_code import compiled_once

@compiled_once()
def doubled(x):
    return 2 * x
"""


def _machine_code(folder: Path) -> None:
    (folder / "compiled_here.py").write_text(_MODULE, encoding="utf-8")
    _read_machine_code(folder)


def _read_machine_code(folder: Path) -> str:
    """A function that Numba compiled into files beside it, called anew."""
    import importlib.util

    path = folder / "compiled_here.py"
    spec = importlib.util.spec_from_file_location("compiled_here", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.doubled(4))


def _codecs() -> dict[str, Any]:
    """Codecs whose form is a stream, which a decoder follows wherever it leads."""
    from elision.memory import codecs

    return {
        "sz3": codecs.Sz3(),
        "zfp": codecs.Zfp(),
        "jpeg": codecs.Jpeg(),
        "deflated jpeg": codecs.Jpeg(coding="deflate"),
        "zero values": codecs.ZeroValue(),
        "sparse groups": codecs.SparseGroupQuant(4),
    }


def _pack(codec: str) -> Any:
    import torch

    from elision.memory import Role, Slot

    slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT, nonnegative=True)
    x = torch.linspace(-9, 9, 4096).view(1, 4, 32, 32).sin().relu()
    return _codecs()[codec].pack(x, slot)


def _bytes(part: Any) -> Any:
    """The memory of a packed tensor, as an array of bytes."""
    import torch

    return part.view(-1).view(torch.uint8).numpy()


def _packed(codec: str) -> Callable[[Path], None]:
    """The bytes in which a codec keeps a tensor."""

    def make(folder: Path) -> None:
        for place, part in enumerate(_pack(codec).payload):
            (folder / f"part{place}").write_bytes(_bytes(part).tobytes())

    return make


def _unpacked(codec: str) -> Callable[[Path], str]:
    """The tensor of the bytes in a folder, in place of those that were packed."""

    def read(folder: Path) -> str:
        import numpy as np

        packed = _pack(codec)
        for place, part in enumerate(packed.payload):
            content = (folder / f"part{place}").read_bytes()
            content = content.ljust(part.nbytes, b"\0")[: part.nbytes]
            _bytes(part)[:] = np.frombuffer(content, np.uint8)
        packed.verify()
        return str(float(_codecs()[codec].unpack(packed).nan_to_num().sum()))

    return read


_SEALED_CODECS = ("sz3", "zfp")

KINDS = (
    Kind(
        "choice file",
        _choices,
        ("decisions.json",),
        in_process(_read_choices),
        (changed_bytes, json_text, changed_text),
    ),
    Kind(
        "built library",
        _library,
        ("*.so", "*.sha256"),
        in_process(_read_library),
        (changed_bytes,),
        sealed=True,
    ),
    Kind(
        "machine code of Numba",
        _machine_code,
        ("__pycache__/*.nb?",),
        in_process(_read_machine_code),
        (changed_bytes,),
        sealed=True,
    ),
    *(
        Kind(
            f"packed by {codec}",
            _packed(codec),
            ("part*",),
            in_process(_unpacked(codec)),
            (changed_bytes,),
            sealed=codec in _SEALED_CODECS,
        )
        for codec in (
            *_SEALED_CODECS,
            *("jpeg", "deflated jpeg", "zero values", "sparse groups"),
        )
    ),
)
