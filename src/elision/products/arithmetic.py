"""Number formats of one product, by name: of its operands, its sums and its result."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["FP32", "Arithmetic"]


@dataclass(frozen=True)
class Arithmetic:
    """Number formats of one product, as names of :data:`elision.formats.FORMATS`.

    Attributes:
        first, second: of the two operands, in the order of ``kind.operands``.
        sums: of the partial sums inside the product.
        result: of the product's result.

    Example:
        >>> Arithmetic("fp8-e5m2", "fp8-e4m3").to_json()
        {'first': 'fp8-e5m2', 'second': 'fp8-e4m3'}
    """

    first: str = "fp32"
    second: str = "fp32"
    sums: str = "fp32"
    result: str = "fp32"

    @property
    def swapped(self) -> "Arithmetic":
        """The same with the operands in the other order."""
        return Arithmetic(self.second, self.first, self.sums, self.result)

    def to_json(self) -> dict[str, Any]:
        """What differs from float32, by name."""
        return {name: text for name, text in asdict(self).items() if text != "fp32"}

    def __str__(self) -> str:
        """The formats in a few words, for tables."""
        operands = (
            self.first if self.first == self.second else f"{self.first} x {self.second}"
        )
        words = [operands]
        if self.sums != "fp32":
            words.append(f"sums {self.sums}")
        if self.result != "fp32":
            words.append(f"result {self.result}")
        return ", ".join(words)


#: All float32.
FP32 = Arithmetic()
