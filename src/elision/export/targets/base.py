"""A format of files that a quantised graph is written to, and who runs such a file."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from elision.common.extras import check_installed
from elision.export.graph import QuantisedGraph

__all__ = ["Target"]


class Target(ABC):
    """A format with its writer, and an interpreter of it that is not ours.

    Example:
        >>> from elision.export.targets import TARGETS
        >>> TARGETS["onnx"].suffix
        '.onnx'
    """

    #: Name on the command line.
    key: ClassVar[str]
    #: End of a file's name.
    suffix: ClassVar[str]
    #: Modules that it needs, and the extra that installs them.
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    #: Who runs the file here, for tables.
    interpreter: ClassVar[str]

    def check(self) -> None:
        """Raise ModuleNotFoundError, naming the command, unless all it needs is here."""
        for module in self.needs:
            check_installed(module, self.extra, f"target {self.key!r}")

    @abstractmethod
    def write(self, graph: QuantisedGraph, path: Path) -> None:
        """Write the graph, whole or not at all.

        Raises:
            ValueError: the format has no form of one of the graph's operations.
            OSError: the file cannot be written.
        """

    @abstractmethod
    def run(self, path: Path, graph: QuantisedGraph, codes: Tensor) -> Tensor:
        """Output codes that the file's interpreter gives for input codes.

        Args:
            path: what :meth:`write` wrote.
            graph: that was written.
            codes: int8, ``(N, *shape)`` of the graph's input, in torch's layout.

        Returns:
            int8, ``(N, *shape)`` of the graph's output.
        """

    def stored(self, path: Path, graph: QuantisedGraph) -> tuple[int, str]:
        """Bytes that a device stores of what was written, and what they are of."""
        del graph
        return path.stat().st_size, f"{path.name}, run by {self.interpreter}"

    def check_float(self) -> None:
        """Raise ValueError unless the format has a form in floating point, too."""
        raise ValueError(
            f"target {self.key!r} is of integers: give --quantise post or aware, not none"
        )

    def write_float(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """Write a plain network in floating point, whole or not at all.

        Args:
            model: plain, its norms folded.
            example: two inputs or more.
            path: the file.

        Raises:
            ValueError: the format has none.
        """
        del model, example, path
        self.check_float()

    def run_float(self, path: Path, inputs: Tensor) -> Tensor:
        """Outputs, float32, that the interpreter gives for what was written so."""
        del path, inputs
        self.check_float()
        raise AssertionError
