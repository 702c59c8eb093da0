"""Accumulation: how a product sums, and the format of its result."""

from dataclasses import dataclass

from elision.common.checks import integer, one_of
from elision.formats import FORMATS

__all__ = ["TORCH", "Accumulate"]


@dataclass(frozen=True)
class Accumulate:
    """The sums of one product: the third cell of its row in a recipe's table.

    Attributes:
        format: number format of every partial sum, a key of
            :data:`elision.formats.FORMATS`; ``"torch"``: as torch sums.
        chunk: terms summed before their sum is added to a wider one; 0: all of them.
        result: number format of the product's result; ``"torch"``: the layer's dtype.

    Example:
        >>> print(Accumulate("fp16", chunk=128))
        fp16 in chunks of 128
    """

    format: str = "torch"
    chunk: int = 0
    result: str = "torch"

    def __post_init__(self) -> None:
        one_of("Accumulate", "format", self.format, ("torch", *FORMATS))
        integer("Accumulate", "chunk", self.chunk, ">= 0")
        one_of("Accumulate", "result", self.result, ("torch", *FORMATS))

    def __str__(self) -> str:
        """The cell in a few words, for a recipe's table."""
        words = "torch's own" if self.format == "torch" else self.format
        if self.chunk:
            words += f" in chunks of {self.chunk}"
        return words if self.result == "torch" else f"{words}, result {self.result}"


#: Sums and results as torch computes them.
TORCH = Accumulate()
