"""Units of quantities as people read them: one prefix for many, or for a range."""

import math
from collections.abc import Iterable

__all__ = ["common_unit", "counted", "counted_unit", "in_words"]

#: Prefixes of units, by their power of 1,000.
_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}


def common_unit(
    values: Iterable[float], unit: str, scale: float = 1
) -> tuple[str, float]:
    """A unit for all values, and the factor that brings them into it.

    Args:
        values: of one quantity.
        unit: without a prefix.
        scale: of a value in that unit, such as 1e-12 for picojoules.

    Returns:
        The unit with the prefix that fits the largest value, and the factor.

    Example:
        >>> common_unit([4e8, 2e9], "J", scale=1e-12)
        ('mJ', 1e-09)
    """
    largest = max((abs(value) * scale for value in values), default=0.0)
    power = _power(largest)
    return f"{_PREFIXES[power]}{unit}", scale / 1000.0**power


def counted_unit(values: Iterable[float], unit: str) -> tuple[str, float]:
    """:func:`common_unit` for a unit as this library's tables name it.

    Args:
        values: in that unit.
        unit: a word that is counted, such as cycles or MAC; ``"s"``; or ``"pJ"``.

    Returns:
        The unit with its prefix, which stands apart from a word, and the factor. A value
        below one of what is counted has no prefix.

    Example:
        >>> counted_unit([2.5e7], "cycles"), counted_unit([33], "cycles")
        (('M cycles', 1e-06), ('cycles', 1.0))
        >>> counted_unit([0.02], "s"), counted_unit([4e7], "pJ")
        (('ms', 1000.0), ('µJ', 1e-06))
    """
    if unit == "s":
        return common_unit(values, "s")
    if unit == "pJ":
        return common_unit(values, "J", 1e-12)
    largest = max((abs(value) for value in values), default=0.0)
    prefixed, factor = common_unit([max(largest, 1.0)], f" {unit}")
    return prefixed.strip(), factor


def counted(value: float, unit: str) -> str:
    """A value in four digits and :func:`counted_unit`.

    Example:
        >>> counted(12_345_678, "cycles"), counted(33, "cycles"), counted(0.02, "s")
        ('12.35 M cycles', '33 cycles', '20 ms')
    """
    named, factor = counted_unit([value], unit)
    return f"{value * factor:.4g} {named}"


def in_words(low: float, high: float, unit: str) -> str:
    """A range in three digits, its unit with the prefix that fits the upper end.

    Example:
        >>> in_words(0.0012, 0.0061, "Wh"), in_words(2.4, 2.4, "g"), in_words(0, 0, "g")
        ('1.2 to 6.1 mWh', '2.4 g', '0 g')
        >>> in_words(999.9, 999.9, "g")
        '1 kg'
    """
    power = _power(float(f"{high:.3g}"))
    texts = [f"{value / 1000.0**power:.3g}" for value in (low, high)]
    return f"{' to '.join(dict.fromkeys(texts))} {_PREFIXES[power]}{unit}"


def _power(largest: float) -> int:
    """Power of 1,000 whose prefix fits a value."""
    power = math.floor(math.log10(largest) / 3 + 1e-9) if largest > 0 else 0
    return min(max(power, min(_PREFIXES)), max(_PREFIXES))
