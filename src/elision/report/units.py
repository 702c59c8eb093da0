"""One unit for many quantities: the prefix that fits the largest of them."""

import math
from collections.abc import Iterable

__all__ = ["common_unit"]

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
        The unit with its prefix, and the factor.

    Example:
        >>> common_unit([4e8, 2e9], "J", scale=1e-12)
        ('mJ', 1e-09)
    """
    largest = max((abs(value) * scale for value in values), default=0.0)
    power = math.floor(math.log10(largest) / 3 + 1e-9) if largest else 0
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    return f"{_PREFIXES[power]}{unit}", scale / 1000.0**power
