"""Both gradients of a layer on one array: two statements that share its cycles.

The input gradient keeps W in the elements and the weight gradient accumulates dW in them,
so that both have the same sides and stream the same rows of G. An element works on one
gradient in the cycles of one parity and on the other in those of the other::

    λ_dX = 2m + o + j        λ_dW = 2m + o + j + 1

This is the interleaving of :class:`~elision.accelerators.InterGrad` as a map.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from elision.accelerators.spatial.derived import makespan
from elision.accelerators.spatial.integers import Vector
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest
from elision.common.checks import integer
from elision.products import MatmulGeometry, Product

__all__ = ["GradientPair"]


@dataclass(frozen=True)
class GradientPair:
    """Input and weight gradient of a matrix product, interleaved on one array.

    Attributes:
        geometry: rows M, inner J, columns O; of one batch.
        offset: cycles by which the weight gradient follows the input gradient.

    Raises:
        ValueError: a negative offset.

    Example:
        >>> pair = GradientPair(MatmulGeometry(rows=5, inner=4, columns=3))
        >>> pair.cycles, pair.collision()
        (15, None)
    """

    geometry: MatmulGeometry
    offset: int = 1

    def __post_init__(self) -> None:
        integer("GradientPair", "offset", self.offset, ">= 0")

    @cached_property
    def nests(self) -> tuple[LoopNest, LoopNest]:
        """Nests of the input and of the weight gradient."""
        kinds = (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
        first, second = (LoopNest.of(kind, self.geometry) for kind in kinds)
        return first, second

    @cached_property
    def map(self) -> SpaceTimeMap:
        """The map of both: element (o, j), a row of G every other cycle."""
        return SpaceTimeMap(("j", "k"), {"i": 2, "j": 1, "k": 1})

    @property
    def cycles(self) -> int:
        """Cycles from the first iteration of either gradient to the last."""
        spans = [makespan(nest, self.map) for nest in self.nests]
        return max(spans[0], self.offset + spans[1])

    def collision(self) -> tuple[Vector, Vector] | None:
        """An iteration of each gradient that share an element and a cycle, if any do."""
        matrix = np.array(self.map.matrix(self.nests[0]))
        points = [z for z in np.ndindex(*self.nests[0].extents)]
        at = {tuple(map(int, matrix @ z)): z for z in points}
        for z in points:
            *place, time = (int(n) for n in matrix @ z)
            if (met := at.get((*place, time + self.offset))) is not None:
                return met, z
        return None
