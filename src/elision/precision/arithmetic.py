"""Arithmetic: a number format for each operand, in the words of the literature.

``"8a-4w"`` is inputs ("activations") of 8 bits and weights of 4, ``"8a-8w-8g"`` has
gradients of 8 bits as well. Any format of :data:`elision.formats.FORMATS` stands for all
operands by its name, and for some by ``"input=int8,weight=mxfp4"``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from elision.common.checks import integer
from elision.common.names import lookup
from elision.formats import FLOATS, format_named
from elision.layers.table import Table
from elision.operands import KEEP, Cast, Project, Ternary, Transform
from elision.products import OPERANDS, Product

__all__ = ["Arithmetic", "arithmetic", "bits_of", "rounding"]

#: Weights that share a scale where two bits of a weight are ternary (the published choice
#: of ternary residual networks, arXiv 1707.04679).
BLOCK = 64

#: Widest float that gets a scale to hold a tensor's values, widest integer with a zero
#: point (own choices: wider ones are used without).
_NARROW = 8

#: Dimension of each operand that its product sums over: blocks run along it, and slices
#: of the other one of the first two have scales of their own.
_SUMMED = {
    Product.FORWARD: {"input": 1, "weight": 1},
    Product.INPUT_GRAD: {"grad_output": 1, "weight": 0},
    Product.WEIGHT_GRAD: {"grad_output": 0, "input": 0},
}

#: What each letter of ``8a-4w-8g`` stands for.
_LETTERS = {"a": "input", "w": "weight", "g": "grad_output"}


def rounding(format: str, operand: str, product: Product | None = None) -> Transform:
    """The transform that rounds an operand to a format, as its product needs it.

    A number is that many bits, evenly spaced: of a weight symmetric with the step of least
    squared error for each output channel (2 bits: ternary in blocks of 64; 1 bit: two
    values), of an input with a step and a zero point for the tensor (beyond 8 bits
    symmetric), of a gradient symmetric with a step for the tensor; of these two nothing is
    cut off. A format's blocks run along the dimension
    that the product sums over. A float of 8 bits or fewer gets one scale for the tensor.

    Args:
        format: a number of bits, ``"1"`` to ``"16"``, or a name of
            :data:`elision.formats.FORMATS`.
        operand: ``"input"``, ``"weight"`` or ``"grad_output"``.
        product: that reads it; None: the first that does.

    Raises:
        ValueError: an unknown format or operand, or one bit of another operand than a
            weight.

    Example:
        >>> print(rounding("4", "weight"))
        4 bits by channel
    """
    lookup("operand", operand, dict.fromkeys(OPERANDS))
    if format.isdecimal():
        return _of_bits(int(format), operand)
    number = format_named(format)
    reads = product or next(p for p in Product if operand in p.operands)
    summed = _SUMMED[reads][operand]
    over = getattr(getattr(number, "grouping", None), "over", "tensor")
    axis = 1 - summed if over == "channel" else summed
    if format in FLOATS and number.bits <= _NARROW:
        return Cast(format, scale="tensor")
    return Cast(format, axis=axis)


def _of_bits(bits: int, operand: str) -> Transform:
    integer("rounding", "bits", bits, "[1, 16]")
    if operand != "weight":
        integer("rounding", "bits", bits, "[2, 16]")
        return Cast(f"{'u' if operand == 'input' and bits <= _NARROW else ''}int{bits}")
    if bits == 2:
        return Ternary(block=BLOCK, terms=1)
    return Project(bits, "channel", fit="least-squares")


def bits_of(format: str) -> int:
    """Bits of an element in a format, scales not counted.

    Example:
        >>> bits_of("4"), bits_of("fp8-e4m3")
        (4, 8)
    """
    return int(format) if format.isdecimal() else format_named(format).bits


@dataclass(frozen=True)
class Arithmetic:
    """A format for each operand; an operand without one stays as it is.

    Attributes:
        name: as it was written.
        formats: operand -> format, as :func:`rounding` takes it.

    Example:
        >>> found = arithmetic("8a-4w")
        >>> found.formats
        {'input': '8', 'weight': '4'}
        >>> print(found.rounding("weight"))
        4 bits by channel
    """

    name: str
    formats: Mapping[str, str]

    def rounding(self, operand: str, product: Product = Product.FORWARD) -> Transform:
        """What is done to an operand of a product; KEEP where there is no format."""
        if operand not in self.formats:
            return KEEP
        return rounding(self.formats[operand], operand, product)

    def table(self) -> Table:
        """The table of a layer: the forward product, and the gradients if they round."""
        kinds = list(Product) if "grad_output" in self.formats else [Product.FORWARD]
        return Table(
            {
                kind: {
                    operand: self.rounding(operand, kind) for operand in kind.operands
                }
                for kind in kinds
            }
        )


def arithmetic(text: str) -> Arithmetic:
    """The arithmetic that a text names.

    Args:
        text: ``"8a-4w"`` (any of ``a``, ``w`` and ``g``, in this order), the name of a
            format, or ``"OPERAND=FORMAT,..."``.

    Raises:
        ValueError: none of these, or a number of bits out of range.

    Example:
        >>> arithmetic("input=8,weight=fp8-e4m3").formats["weight"]
        'fp8-e4m3'
    """
    formats = _formats(text)
    found = Arithmetic(text, formats)
    for operand in formats:
        for product in Product:
            if operand in product.operands:
                found.rounding(operand, product)
    return found


def _formats(text: str) -> dict[str, str]:
    words = [re.fullmatch(r"(\d+)([awg])", word) for word in text.split("-")]
    if all(words):
        letters = {word[2]: word[1] for word in words if word}
        # Each at most once, in the order of the literature.
        if [word[2] for word in words if word] == [x for x in _LETTERS if x in letters]:
            return {_LETTERS[letter]: bits for letter, bits in letters.items()}
    operand = text.partition("=")[0].strip()
    if "=" not in text or ":" in operand:
        try:
            return dict.fromkeys(OPERANDS, format_named(text).name)
        except ValueError as error:
            raise ValueError(
                f"arithmetic {text!r}: write bits such as 8a-4w, OPERAND=FORMAT,... or a "
                f"number format ({error})"
            ) from error
    formats = {}
    for part in text.split(","):
        operand, _, format = (word.strip() for word in part.partition("="))
        lookup(f"operand of arithmetic {text!r}:", operand, dict.fromkeys(OPERANDS))
        formats[operand] = format
    return formats
