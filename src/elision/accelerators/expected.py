"""Expected cycles of matrix products whose zeros lie at random: closed forms.

Every value is non-zero with the operand's density, independently of all others. Then the
counts that a machine divides into vectors are binomial, and the expected number of vectors
of ``n`` that hold ``B`` values is

    E[⌈B/n⌉] = (E[B] + E[−B mod n])/n,    P(B ≡ j mod n) = 1/n Σₗ ω⁻ʲˡ (1 − d + d·ωˡ)ᴺ

for ``B`` of ``N`` values of density ``d``, with ``ω`` the n-th root of unity. So a simulated
count on operands of a real training can stand beside what their densities alone explain.
"""

import itertools
from typing import NamedTuple

import numpy as np

from elision.accelerators.base import Accelerator, ceil_div
from elision.accelerators.inner.intersection import Intersection
from elision.accelerators.inner.one_sided import OneSided
from elision.accelerators.outer.ant import Ant
from elision.accelerators.outer.scnn import Scnn
from elision.common.checks import number
from elision.products import LayerProduct, MatmulGeometry, Product

__all__ = ["expected_cycles", "expected_vectors"]

#: Share of groups whose longer spans are counted as this one's.
_TAIL = 1e-9


class _Matmul(NamedTuple):
    """``batch`` products of (rows x summed) and (summed x columns), and their densities."""

    batch: int
    rows: int
    summed: int
    columns: int
    first: float
    second: float


def expected_cycles(
    machine: Accelerator,
    kind: Product,
    geometry: MatmulGeometry,
    densities: tuple[float, float],
) -> float:
    """Cycles that a matrix product of these densities takes on average.

    Exact, but for two things that matter in small products: the time of the longest
    pair, or output, is taken for that of an average full one; and in tiles on ANT the last
    group of a plane for a full one.

    Args:
        machine: any but SCNN in its planar mapping.
        kind: the product.
        geometry: of the layer.
        densities: fractions of non-zeros of the two operands, in [0, 1].

    Raises:
        ValueError: a machine without a closed form, or a density out of range.

    Example:
        >>> machine = Intersection(elements=1, join_cycles=0)
        >>> expected_cycles(machine, Product.FORWARD, MatmulGeometry(8, 4, 8), (0.5, 1.0))
        128.0
    """
    for density in densities:
        number("expected_cycles", "densities", density, "[0, 1]")
    if machine.value_blind:
        return float(machine.cost(LayerProduct(kind, geometry)).cycles)
    free = {  # rows, summed index and columns of X·Wᵀ, G·W and Gᵀ·X
        Product.FORWARD: (geometry.rows, geometry.inner, geometry.columns),
        Product.INPUT_GRAD: (geometry.rows, geometry.columns, geometry.inner),
        Product.WEIGHT_GRAD: (geometry.columns, geometry.rows, geometry.inner),
    }[kind]
    matmul = _Matmul(geometry.batch, *free, *densities)
    if isinstance(machine, OneSided):
        named = dict(zip(kind.operands, densities, strict=True))
        return _one_sided(machine, machine.side_of(kind, named), matmul)
    if isinstance(machine, Intersection):
        return _intersection(machine, matmul)
    if isinstance(machine, Ant) or (
        isinstance(machine, Scnn) and machine.mapping == "plane-pair"
    ):
        return _plane_pairs(machine, matmul)
    raise ValueError(f"{machine!r}: there is no closed form of its cycles")


def expected_vectors(values: int, density: float, lanes: int) -> float:
    """``E[⌈B/lanes⌉]`` of the non-zeros ``B`` among so many values.

    Example:
        >>> expected_vectors(1, 0.25, 4), expected_vectors(10, 1.0, 4)
        (0.25, 3.0)
    """
    residues = np.arange(lanes)
    missing = residues @ _residue_shares(values, density, lanes)[-residues % lanes]
    return float(values * density + missing) / lanes


def _residue_shares(values: int, density: float, modulus: int) -> np.ndarray:
    """``P(B ≡ j mod modulus)`` for every j."""
    roots = np.exp(2j * np.pi * np.arange(modulus) / modulus)
    shares = np.fft.fft((1 - density + density * roots) ** values).real / modulus
    return np.clip(shares, 0, 1)


def _one_sided(machine: OneSided, side: int | None, matmul: _Matmul) -> float:
    density = 1.0 if side is None else (matmul.first, matmul.second)[side]
    each = expected_vectors(matmul.summed, density, machine.lanes)
    outputs = matmul.batch * matmul.rows * matmul.columns
    return max(outputs * each / machine.elements, each)


def _intersection(machine: Intersection, matmul: _Matmul) -> float:
    found = expected_vectors(matmul.summed, matmul.first * matmul.second, machine.lanes)
    each = found + machine.join_cycles * ceil_div(matmul.summed, machine.chunk)
    outputs = matmul.batch * matmul.rows * matmul.columns
    return max(outputs * each / machine.elements, each)


def _plane_pairs(machine: Scnn | Ant, matmul: _Matmul) -> float:
    """Pairs of vectors of one index, or of tiles of all of them."""
    if machine.matmul_tile is None:
        pairs = [(matmul.batch * matmul.summed, matmul.rows, matmul.columns)]
        summed = 1
    else:
        sides = (_cut(n, machine.matmul_tile) for n in (matmul.rows, matmul.columns))
        pairs = [
            (matmul.batch * a * b, height, width)
            for (a, height), (b, width) in itertools.product(*sides)
        ]
        summed = matmul.summed
    elements = machine.multiplier_count // machine.multipliers**2
    busy = longest = 0.0
    for count, height, width in pairs:
        first, second = (height, matmul.first), (width, matmul.second)
        cycles = _pair(machine, summed, first, second)
        started = 1.0
        if machine.skip_empty_pairs:
            for size, density in (first, second):
                started *= 1 - (1 - density) ** (summed * size)
        cycles += machine.startup_cycles * started
        busy += count * cycles
        longest = max(longest, cycles)
    return max(busy / elements, longest)


def _cut(size: int, tile: int) -> list[tuple[int, int]]:
    """(count, width) of whole tiles, and of what is left."""
    parts = [(size // tile, tile), (1, size % tile)]
    return [(count, width) for count, width in parts if count and width]


def _pair(
    machine: Scnn | Ant,
    summed: int,
    first: tuple[int, float],
    second: tuple[int, float],
) -> float:
    """Cycles of one pair of planes, ``summed`` by the given widths, at the densities."""
    n = machine.multipliers
    if isinstance(machine, Scnn):
        sides = (expected_vectors(summed * w, d, n) for w, d in (first, second))
        return float(np.prod(list(sides)))
    steps = min(n, machine.window)  # every index in range matches
    if machine.matmul_tile is None:
        vectors = expected_vectors(summed * first[0], first[1], n)
        return vectors * expected_vectors(summed * second[0], second[1], steps)
    return _ranges(machine, summed, first, second)


def _ranges(
    machine: Ant, summed: int, first: tuple[int, float], second: tuple[int, float]
) -> float:
    """Cycles of ANT on a pair of tiles: of every group, by the indices that it spans.

    A group starts at a value with a multiple of ``group`` before it, and spans ``r``
    further indices if its last value is that many rows down.
    """
    width, density = first
    group, steps = machine.group or machine.multipliers, machine.window
    steps = min(machine.multipliers, steps)
    if density == 0:
        return 0.0
    places = np.arange(summed * width)
    roots = np.exp(2j * np.pi * np.arange(group) / group)
    powers = (1 - density + density * roots) ** places[:, None]
    starts = (density * powers.mean(1).real).reshape(summed, width)
    across = np.arange(width)
    within: list[np.ndarray] = []  # P(span <= r) by the group's first column
    while len(within) < summed:
        within.append(
            _at_least(group - 1, width * (len(within) + 1) - 1 - across, density)
        )
        if within[-1].min() > 1 - _TAIL:
            break
    spans = np.diff(np.array(within), axis=0, prepend=0)
    cost = np.array(
        [
            expected_vectors((r + 1) * second[0], second[1], steps)
            for r in range(len(spans))
        ]
    )
    # A group that starts k indices before the last spans k of them at most.
    shorter = np.cumsum(spans * cost[:, None], 0) - spans * cost[:, None]
    longer = 1 - np.array(within) + spans
    each = shorter + longer * cost[:, None]
    left = np.minimum(np.arange(summed)[::-1], len(spans) - 1)
    vectors = ceil_div(group, machine.multipliers)
    return float(vectors * (starts * each[left]).sum())


def _at_least(count: int, values: np.ndarray, density: float) -> np.ndarray:
    """``P(B >= count)`` of the non-zeros ``B`` among each number of values."""
    if density == 1:
        return (values >= count).astype(float)
    term = (1 - density) ** values
    below = np.zeros(len(values))
    for i in range(count):
        below += term
        term = term * np.maximum(values - i, 0) / (i + 1) * density / (1 - density)
    return 1 - below
