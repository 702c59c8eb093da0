"""Formats that a quantised graph is exported to, one file each."""

from elision.export.targets.base import Target
from elision.export.targets.c import CArrays
from elision.export.targets.litert import LiteRt
from elision.export.targets.onnx import Onnx

__all__ = ["TARGETS", "Target"]

#: By the name that ``--target`` takes.
TARGETS: dict[str, Target] = {
    target.key: target for target in (Onnx(), LiteRt(), CArrays())
}
