"""Number formats in a machine: words of memory, and the actions that its units take.

Machines count operations on float32 values and accesses of 32-bit words. A product whose
:class:`~elision.products.Arithmetic` names narrower formats moves fewer words for as many
values, and its multiplications and additions are actions of other names, which the energy
table prices (:mod:`elision.accelerators.narrow`). Cycles stay: a unit that multiplies
narrower numbers still takes one.
"""

from fractions import Fraction
from functools import lru_cache

from elision.accelerators.narrow import unit_of
from elision.products import FP32, Arithmetic, Product

__all__ = ["FLOAT32", "WORD_BITS", "Numbers", "numbers_of"]

#: Bits of one word: accelerators count 32-bit words.
WORD_BITS = 32


class Numbers:
    """The formats of one product as a machine of them: widths and names of actions.

    Attributes:
        first, second, sums, result: bits of a value of each, its share of scales included.
        multiply, add: actions of the energy table; ``"multiply"`` and ``"add"`` are
            float32's.

    Example:
        >>> half = Numbers(Arithmetic("bf16", "bf16"))
        >>> half.multiply, half.add, half.words(100, half.first)
        ('multiply bf16', 'add', 50)
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        names = (arithmetic.first, arithmetic.second)
        self.first, self.second = (unit_of(name).stored_bits for name in names)
        self.sums = unit_of(arithmetic.sums).stored_bits
        self.result = unit_of(arithmetic.result).stored_bits
        operands = names[0] if names[0] == names[1] else " x ".join(names)
        self.multiply = "multiply" if operands == "fp32" else f"multiply {operands}"
        self.add = "add" if arithmetic.sums == "fp32" else f"add {arithmetic.sums}"

    @property
    def operands(self) -> Fraction:
        """Bits of the two operands together, halved: of a value of a buffer of both."""
        return (self.first + self.second) / 2

    def by_operand(self, kind: Product) -> dict[str, Fraction]:
        """Bits of the three tensors by operand name; the one that is written has ``sums``.

        Partial sums are kept, and read back, as wide as they are added.
        """
        first, second = kind.operands
        return {first: self.first, second: self.second, kind.absent: self.sums}

    @staticmethod
    def words(values: int, bits: Fraction) -> int:
        """32-bit words that hold so many values of a width, rounded up."""
        return -(-values * bits.numerator // (bits.denominator * WORD_BITS))


#: Those of a product of float32 values.
FLOAT32 = Numbers(FP32)


@lru_cache(maxsize=1024)
def numbers_of(arithmetic: Arithmetic) -> Numbers:
    """The numbers of a product's arithmetic, kept."""
    return Numbers(arithmetic)
