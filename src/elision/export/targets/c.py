"""C: one portable file with constant arrays and a static arena, and its header."""

import re
from pathlib import Path

from torch import Tensor

from elision.export.c_arrays import c_compiler, c_program, run_source
from elision.export.graph import QuantisedGraph
from elision.export.planning.quantised import plan_quantised
from elision.export.targets.base import Target

__all__ = ["CArrays"]


class CArrays(Target):
    """C99 of this library's own kernels, whose codes are the integer graph's, bit for bit.

    Beside ``NAME.c`` stands ``NAME.h`` with sizes, scales and the one function,
    ``int NAME_run(const int8_t *input, int8_t *output)``; what in the file's name is no
    part of a C identifier becomes ``_`` there.

    Example:
        >>> from elision.export.targets import TARGETS
        >>> TARGETS["c"].interpreter
        'C compiler'
    """

    key = "c"
    suffix = ".c"
    interpreter = "C compiler"

    def check(self) -> None:
        """Raise FileNotFoundError unless there is a compiler to run the file with."""
        c_compiler()

    def write(self, graph: QuantisedGraph, path: Path) -> None:
        """See :class:`Target`; the header is written beside the file."""
        program = c_program(graph, identifier(path.stem), stem=path.stem)
        program.write(path.parent)

    def run(self, path: Path, graph: QuantisedGraph, codes: Tensor) -> Tensor:
        """See :class:`Target`; compiled here, warnings as errors, and run."""
        found = run_source(path, identifier(path.stem), codes)
        return found.view(len(codes), *graph.values[graph.output].shape)

    def stored(self, path: Path, graph: QuantisedGraph) -> tuple[int, str]:
        """Bytes of the constant arrays, which are less than the text of the file."""
        plan = plan_quantised(graph)
        return plan.flash_bytes, f"constants of {path.name}, run by {self.interpreter}"


def identifier(text: str) -> str:
    """A C identifier like a text.

    Example:
        >>> identifier("photo-resnet8"), identifier("3x3")
        ('photo_resnet8', 'net_3x3')
    """
    found = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return found if re.match(r"[A-Za-z]", found) else f"net_{found}"
