"""Prices of arithmetic in narrow formats, derived from those that a table gives.

Tables give few formats: Horowitz's 8- and 32-bit integers, 16- and 32-bit floating point.
Others follow by this project's own rule, a straight line through the table's two entries of
the family, which is exact there:

- a multiplier grows with the product of the two significands' widths, which is the number
  of its partial products: ``p = 24`` bits of float32, 11 of float16, 8 of an 8-bit integer;
- an adder grows with the width of a number.

A family of which a table gives one entry is scaled in proportion. Where an operand is −1, 0
or 1 there is no multiplier: the sum adds, subtracts or does neither. Scales that a block
shares are left out: one multiplication, or addition of exponents, for a whole block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from elision.formats import Floating, Format, Scaled, format_named
from elision.formats.accumulate import INT32

__all__ = ["Unit", "derived", "unit_of"]


@dataclass(frozen=True)
class Unit:
    """What a number format asks of a multiplier or an adder.

    Attributes:
        family: ``"float"``, ``"integer"`` or ``"sign"`` (−1, 0 and 1).
        significand_bits: width of a factor, the leading one included.
        bits: width of a number.
        stored_bits: of a value in a memory, its share of a block's scales included.

    Example:
        >>> unit_of("fp16").significand_bits, unit_of("mxfp8").stored_bits
        (11, Fraction(33, 4))
    """

    family: Literal["float", "integer", "sign"]
    significand_bits: int
    bits: int
    stored_bits: Fraction


@lru_cache(maxsize=256)
def unit_of(name: str) -> Unit:
    """The unit of a format.

    Raises:
        ValueError: an unknown format; the message lists the known ones.
    """
    if name in _PLAIN:
        return _PLAIN[name]
    format = format_named(name)
    element = format.element if isinstance(format, Scaled) else format
    stored = Fraction(element.bits) + _shared_bits(format)
    if isinstance(element, Floating):
        return Unit("float", element.fraction_bits + 1, element.bits, stored)
    if element.largest == 1 and element.bits <= 2:
        return Unit("sign", 0, element.bits, stored)
    return Unit("integer", element.bits, element.bits, stored)


#: Formats of sums that are no format of an operand.
_PLAIN = {INT32: Unit("integer", 32, 32, Fraction(32))}


def _shared_bits(format: Format) -> Fraction:
    """Bits of a block's scales for each of its values; a tensor's scale is for nothing."""
    if not isinstance(format, Scaled) or not format.grouping.block:
        return Fraction(0)
    return Fraction(format.group_bits, format.grouping.block)


def derived(prices: Mapping[str, float], action: str) -> float | None:
    """Energy or area of an action in a narrow format, from a table's entries.

    Args:
        prices: entries by action, ``"multiply"`` and ``"add"`` being float32's.
        action: ``"multiply <format>"``, ``"multiply <format> x <format>"`` or
            ``"add <format>"``.

    Returns:
        None if the table has no entry of the family, or the action is no such.

    Raises:
        ValueError: an unknown format.

    Example:
        >>> table = {"multiply": 3.7, "multiply_fp16": 1.1}
        >>> derived(table, "multiply fp16"), round(derived(table, "multiply bf16"), 3)
        (1.1, 0.774)
    """
    verb, _, formats = action.partition(" ")
    if verb not in ("multiply", "add") or not formats:
        return None
    units = [unit_of(name) for name in formats.split(" x ")]
    families = {unit.family for unit in units}
    if verb == "multiply" and "sign" in families:
        return 0.0
    family = "float" if "float" in families else "integer"
    size = units[0].bits
    if verb == "multiply":
        size = units[0].significand_bits * units[-1].significand_bits
    known = [
        (at, prices[name])
        for name, at in _ENTRIES[verb, family].items()
        if name in prices
    ]
    return _on_line(known, size)


#: Entries of tables: action -> its size, of a multiplier in partial products, of an adder
#: in bits. Float32's are ``"multiply"`` and ``"add"``.
_ENTRIES: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("multiply", "float"): {"multiply_fp16": 11 * 11, "multiply": 24 * 24},
    ("multiply", "integer"): {"multiply_int8": 8 * 8, "multiply_int32": 32 * 32},
    ("add", "float"): {"add_fp16": 16, "add": 32},
    ("add", "integer"): {"add_int8": 8, "add_int32": 32},
}


def _on_line(known: list[tuple[int, float]], size: int) -> float | None:
    """The value at a size on the line through the entries; in proportion from one."""
    if not known:
        return None
    (low, price), (high, other) = known[0], known[-1]
    if low == high:
        return price * size / low
    for at, exact in known:
        if at == size:
            return exact
    found = price + (other - price) * (size - low) / (high - low)
    # Far below the smaller entry, the line may fall under zero.
    return max(found, 0.0)
