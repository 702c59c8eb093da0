"""Space of candidates: choices and knobs by name, and the points in it."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from elision.common.checks import integer, number

__all__ = ["Choice", "Knob", "Point", "Space"]

#: A value for each dimension of a space, by name.
Point = Mapping[str, Any]

#: Draws in a row that bring nothing new, after which no more points are drawn (own choice).
_PATIENCE = 1000


@dataclass(frozen=True)
class Choice:
    """A dimension of a few options without an order, such as a layer's transforms.

    Attributes:
        name: of the dimension; a layer's name, for example.
        options: words, of which a point has one.

    Raises:
        ValueError: there is no option, or one is given twice.

    Example:
        >>> Choice("fc", ("dense", "swat:sparsity=0.9")).size
        2
    """

    name: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options or len(set(self.options)) < len(self.options):
            raise ValueError(
                f"choice {self.name!r}: options must be different and at least one, got "
                f"{self.options}"
            )

    @property
    def size(self) -> int:
        """Number of options."""
        return len(self.options)

    def drawn(self, chance: random.Random) -> str:
        """An option, each as likely."""
        return self.options[chance.randrange(self.size)]


@dataclass(frozen=True)
class Knob:
    """A dimension of numbers, such as a sparsity or a learning rate.

    Attributes:
        name: of the dimension.
        low, high: both are in it.
        log: whether equal ratios are equally far apart.
        integer: whether its values are whole.

    Raises:
        ValueError: ``low`` is above ``high``, a bound is not finite or not whole where it
            must be, or a logarithmic knob reaches zero.

    Example:
        >>> Knob("lr", 0.001, 0.1, log=True).drawn(random.Random(0)) < 0.1
        True
    """

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        owner = f"knob {self.name!r}"
        for bound in ("low", "high"):
            value = getattr(self, bound)
            if self.integer:
                integer(owner, bound, value, "(-inf, inf)")
            number(owner, bound, value, "> 0" if self.log else "(-inf, inf)")
        if self.low > self.high:
            raise ValueError(f"{owner}: low {self.low} is above high {self.high}")

    @property
    def size(self) -> float:
        """Number of values; infinite where they are not whole."""
        if self.low == self.high:
            return 1
        return int(self.high) - int(self.low) + 1 if self.integer else math.inf

    def drawn(self, chance: random.Random) -> float | int:
        """A value, each as likely, or each ratio."""
        if self.integer and not self.log:
            return chance.randint(int(self.low), int(self.high))
        if not self.log:
            return chance.uniform(self.low, self.high)
        # A whole value has the ratios from half below it to half above it.
        half = 0.5 if self.integer else 0.0
        low, high = math.log(self.low - half), math.log(self.high + half)
        value = math.exp(chance.uniform(low, high))
        if self.integer:
            value = round(value)
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Space:
    """Dimensions, of each of which a point has a value.

    Attributes:
        dimensions: choices and knobs, of different names.

    Raises:
        ValueError: no dimension, or a name given twice.

    Example:
        >>> space = Space((Choice("conv", ("dense", "swat")), Choice("fc", ("dense", "fp8"))))
        >>> space.size, space.points(2, seed=0) == space.points(2, seed=0)
        (4, True)
        >>> space.points(9)[-1]  # all of them
        {'conv': 'swat', 'fc': 'fp8'}
    """

    dimensions: tuple[Choice | Knob, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        names = [dimension.name for dimension in self.dimensions]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"space: dimensions must have different names, at least one; got {names}"
            )

    @property
    def size(self) -> float:
        """Number of points; infinite where a knob's values are not whole."""
        return math.prod(dimension.size for dimension in self.dimensions)

    def drawn(self, chance: random.Random) -> dict[str, Any]:
        """A point, each dimension by itself."""
        return {d.name: d.drawn(chance) for d in self.dimensions}

    def points(self, count: int, seed: int = 0) -> list[dict[str, Any]]:
        """Different points: all where there are no more than ``count``, else drawn ones.

        Args:
            count: at most so many.
            seed: of the draws.

        Raises:
            ValueError: ``count`` is out of range.
        """
        integer("space", "count", count)
        if self.size <= count:
            return list(islice(self._all(), count))
        chance, found = random.Random(seed), {}
        idle = 0
        while len(found) < count and idle < _PATIENCE:
            point = self.drawn(chance)
            key = tuple(point.values())
            idle = idle + 1 if key in found else 0
            found.setdefault(key, point)
        return list(found.values())

    def _all(self) -> Iterator[dict[str, Any]]:
        values: list[Sequence[Any]] = [
            d.options
            if isinstance(d, Choice)
            else [d.low]
            if d.size == 1
            else range(int(d.low), int(d.high) + 1)
            for d in self.dimensions
        ]
        for point in product(*values):
            yield dict(zip((d.name for d in self.dimensions), point, strict=True))

    def corners(self) -> Iterator[dict[str, Any]]:
        """Points that together have every option and every bound of a knob."""
        ends = [
            d.options if isinstance(d, Choice) else (d.low, d.high)
            for d in self.dimensions
        ]
        for place in range(max(map(len, ends))):
            values = (end[min(place, len(end) - 1)] for end in ends)
            yield dict(zip((d.name for d in self.dimensions), values, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by name."""
        return {
            d.name: list(d.options)
            if isinstance(d, Choice)
            else {"low": d.low, "high": d.high, "log": d.log, "integer": d.integer}
            for d in self.dimensions
        }
