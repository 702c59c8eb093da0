"""Dense training: nothing is left out."""

from dataclasses import dataclass

from elision.layers.recipe import Table
from elision.methods.base import Method

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense(Method):
    """Every operand of every product is kept: plain training, the baseline.

    Example:
        >>> bool(Dense().table)
        False
    """

    key = "dense"

    def build(self) -> Table:
        return Table()
