"""Budgets of active weights by layer: uniform, ER and ERK.

With ``N_l`` the weights of layer ``l`` and ``d`` the given density, ER and ERK give
layer ``l`` the density ``eps·r_l``, where ``eps`` solves::

    eps · sum_free(r_l · N_l) = d · sum_all(N_l) − sum_fixed(nnz_l)

``r_l`` is the sum of the layer's dimensions over their product (ERK: of all four; ER: of
the channels alone). While the largest density exceeds 1, all free layers tied at it are
made dense and the equation is solved again (Evci et al., Rigging the Lottery, ICML
2020). Counts are whole and their sum is exact (largest remainder).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from elision.common.checks import number
from elision.common.names import lookup
from elision.topology.selection import apportion

__all__ = ["DISTRIBUTIONS", "densities", "weight_counts"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Erdos:
    """Densities proportional to ``(sum of dimensions / product of dimensions)^power``."""

    kernel: bool

    def __call__(
        self, shapes: Shapes, density: float, fixed: Mapping[str, float], power: float
    ) -> dict[str, float]:
        sizes = {name: prod(shape) for name, shape in shapes.items()}
        found = dict(fixed)
        budget = density * sum(sizes.values())
        raw = {n: self._ratio(shape) ** power for n, shape in shapes.items()}
        while free := [name for name in shapes if name not in found]:
            left = budget - sum(found[n] * sizes[n] for n in found)
            scale = left / sum(raw[n] * sizes[n] for n in free)
            largest = max(raw[n] for n in free)
            if scale * largest <= 1:
                found.update({n: scale * raw[n] for n in free})
            else:
                found.update({n: 1.0 for n in free if raw[n] == largest})
        return found

    def _ratio(self, shape: tuple[int, ...]) -> float:
        dims = shape if self.kernel else shape[:2]
        return sum(dims) / prod(dims)


def _uniform(
    shapes: Shapes, density: float, fixed: Mapping[str, float], power: float
) -> dict[str, float]:
    del power
    return {name: fixed.get(name, density) for name in shapes}


#: Distributions by name: ``(shapes, density, fixed densities, power) -> densities``.
DISTRIBUTIONS = {
    "uniform": _uniform,
    "er": _Erdos(kernel=False),
    "erk": _Erdos(kernel=True),
}


def densities(
    shapes: Shapes,
    sparsity: float,
    distribution: str = "erk",
    *,
    fixed: Mapping[str, float] | None = None,
    power: float = 1.0,
) -> dict[str, float]:
    """Density of each layer.

    Args:
        shapes: torch shapes of the weights, by layer name.
        sparsity: ER and ERK: of all weights in ``shapes`` together, the fixed ones
            included; uniform: of every layer that is not fixed.
        distribution: a key of :data:`DISTRIBUTIONS`.
        fixed: densities that are given, such as 1 for a layer left dense.
        power: exponent of the ER and ERK ratios.

    Raises:
        ValueError: unknown distribution, a sparsity outside [0, 1), or fixed layers
            that leave the others nothing.
    """
    number("distribution", "sparsity", sparsity, "[0, 1)")
    fixed = {name: d for name, d in (fixed or {}).items() if name in shapes}
    spread = lookup("distribution", distribution, DISTRIBUTIONS)
    found = spread(shapes, 1 - sparsity, fixed, power)
    starved = [name for name, d in found.items() if d <= 0 and name not in fixed]
    if starved:
        taken = sum(d * prod(shapes[n]) for n, d in fixed.items())
        everything = sum(map(prod, shapes.values()))
        raise ValueError(
            f"no {distribution} distribution has sparsity {sparsity:g}: the layers with "
            f"a given density hold {taken:.0f} of {everything} weights, the budget is "
            f"{(1 - sparsity) * everything:.0f}; lower the sparsity or leave less dense"
        )
    return {name: found[name] for name in shapes}


def weight_counts(
    shapes: Shapes, wanted: Mapping[str, float], units: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Whole numbers of active weights (or units) whose sum is that of the densities.

    Args:
        shapes: torch shapes of the weights, by layer name.
        wanted: density of each layer, in [0, 1].
        units: number of things each layer is counted in; None for single weights.

    Returns:
        Counts by layer name: the exact sum, ``round(sum of d_l·n_l)``, or one a layer
        where that is more; at least 1 each.
    """
    sizes = [prod(s) for s in shapes.values()]
    if units is not None:
        sizes = [units[name] for name in shapes]
    exact = [wanted[name] * size for name, size in zip(shapes, sizes, strict=True)]
    total = max(len(exact), round(sum(exact)))
    counts = apportion(total, exact, sizes)
    for empty in [i for i, count in enumerate(counts) if count == 0]:
        counts[counts.index(max(counts))] -= 1
        counts[empty] = 1
    return dict(zip(shapes, counts, strict=True))
