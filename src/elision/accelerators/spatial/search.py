"""A search over maps, shapes of the array and buffers, for one layer's three products.

One map serves all three products, since they are one nest. The maps are the systolic ones
on a mesh: every pair of loops as the array's sides, either way round, every set of the
loops of the kept tensor outside a fold, and the lowered products with each tensor kept.
Buses are left out, because energy tables price no long wires.

Maps and shapes are costed with buffers of equal size. Buffers are then varied on the Pareto
front of cycles and energy, and on the best by the objective, so that the result is the best
of what was tried, not a proof that nothing is better.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations, permutations
from typing import NamedTuple

from elision.accelerators.base import Cost
from elision.accelerators.energy import prices_unused
from elision.accelerators.spatial.array import SpatialArray
from elision.accelerators.spatial.classes import pair_class
from elision.accelerators.spatial.derived import letters
from elision.accelerators.spatial.legality import legal
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor
from elision.accelerators.systolic.sram import Buffers
from elision.common.checks import integer, number
from elision.common.names import lookup
from elision.products import Geometry, LayerProduct, Product

__all__ = ["OBJECTIVES", "Found", "pareto", "search", "systolic_maps"]

#: Shares of the SRAM for input, weight and output, and parts of the limit that are tried.
_SPLITS = ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2))
_PARTS = (1, 4, 16)

#: Best candidates by the objective whose buffers are varied, beside the front.
_BEST = 16


class Found(NamedTuple):
    """One candidate of a search, with what it costs.

    Attributes:
        array: the accelerator.
        dataflow: its map in words.
        cycles: of all products, waiting for the DRAM included.
        energy_pj: of all products, DRAM included.
        cost: the sum of the products' costs.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> best = search(MatmulGeometry(64, 64, 64), pes=64, objective="cycles")[0]
        >>> best.array.rows * best.array.columns, best.cycles == best.cost.cycles
        (64, True)
    """

    array: SpatialArray
    dataflow: str
    cycles: int
    energy_pj: float
    cost: Cost

    @property
    def edp(self) -> float:
        """Energy times cycles."""
        return self.energy_pj * self.cycles


#: What a search minimises.
OBJECTIVES: Mapping[str, Callable[[Found], float]] = {
    "energy": lambda found: found.energy_pj,
    "cycles": lambda found: found.cycles,
    "edp": lambda found: found.edp,
}


def systolic_maps(nest: LoopNest) -> Iterator[SpaceTimeMap]:
    """Systolic maps of a nest onto a plane that cost differently.

    Every pair of loops longer than 1 as sides, either way round, both skewed; for each set
    of the other loops that index what the pair keeps, those outside a fold and the loops of
    its reuse inside.

    Example:
        >>> len(list(systolic_maps(LoopNest.matmul(8, 8, 8))))
        6
    """
    long = [loop for loop, extent in nest.loops.items() if extent > 1]
    for pair in combinations(long, 2):
        tensor, _, word = pair_class(nest, pair).partition(" ")
        keep: list[str | None] = [tensor] if word == "stays" else [None]
        if word in ("shared", "side by side"):
            keep = [other for other in nest.accesses if other != tensor]
        for kept in keep:
            for order in _orders(nest, pair, kept):
                if (time := _skewed(nest, pair, order)) is not None:
                    for sides in permutations(pair):
                        yield SpaceTimeMap(sides, time)


def _orders(
    nest: LoopNest, pair: tuple[str, str], kept: Tensor | None
) -> Iterator[tuple[str, ...]]:
    """Orders of the loops in time: what is outside a fold, its stream, and what it holds."""
    inside = [loop for loop in nest.loops if loop not in pair]
    groups = [n for n in inside if all(nest.indexes(t, n) for t in nest.accesses)]
    rest = [loop for loop in inside if loop not in groups]
    stays = [
        loop
        for loop in rest
        if kept is not None and nest.indexes(kept, loop) and nest.loops[loop] > 1
    ]
    reuse = [loop for loop in rest if loop not in stays]
    for size in range(len(stays) + 1):
        for outer in combinations(stays, size):
            held = [loop for loop in stays if loop not in outer]
            yield (*groups, *outer, *reuse, *held)


def _skewed(
    nest: LoopNest, pair: tuple[str, str], order: tuple[str, ...]
) -> dict[str, int] | None:
    """Time with the least skew of each side by which nothing needs a bus; None without."""
    digits, weight = {}, 1
    for loop in reversed(order):
        digits[loop] = weight
        weight *= nest.loops[loop]
    for skews in ((1, 1), (1, 2), (2, 1), (2, 2)):
        time = digits | dict(zip(pair, skews, strict=True))
        time = {loop: time[loop] for loop in nest.loops}
        map = SpaceTimeMap(pair, time)
        if "M" not in letters(nest, map) and legal(nest, map):
            return time
    return None


def _shapes(pes: int) -> list[tuple[int, int]]:
    """Rows and columns of all arrays with so many elements."""
    return [(n, pes // n) for n in range(1, pes + 1) if pes % n == 0]


def search(
    geometry: Geometry,
    *,
    pes: int = 1024,
    objective: str = "energy",
    sram_kib: float | None = None,
    bandwidth: float = Buffers.dram_words_per_cycle,
    folds: str = "pipelined",
    energy: str = "horowitz-45nm",
    kinds: Iterable[Product] = tuple(Product),
    tick: Callable[[], None] = lambda: None,
) -> list[Found]:
    """The arrays for a layer, best first.

    Args:
        geometry: of the layer.
        pes: processing elements of the array.
        objective: a key of :data:`OBJECTIVES`.
        sram_kib: limit of all three buffers together, both halves of each; None: three
            of the default size.
        bandwidth: 32-bit words that the DRAM moves in a cycle.
        folds: of the arrays, a key of :data:`~elision.accelerators.spatial.folding.FOLDS`.
        energy: name of an energy table, or path of a TOML file.
        kinds: products that count.
        tick: called after each candidate.

    Raises:
        ValueError: ``pes`` below 1, an unknown objective (lists the valid ones), or an SRAM
            that cannot hold a tile of any shape.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> found = search(MatmulGeometry(64, 96, 32), pes=16)
        >>> found[0].energy_pj <= min(each.energy_pj for each in found)
        True
    """
    integer("search", "pes", pes)
    lookup("objective", objective, OBJECTIVES)
    number("search", "bandwidth", bandwidth, "(0, inf]")
    limit = 3 * Buffers.input_kib if sram_kib is None else sram_kib
    number("search", "sram_kib", limit, "> 0")
    products = [LayerProduct(kind, geometry) for kind in kinds]
    shapes = [s for s in _shapes(pes) if 3 * Buffers.minimum_kib(*s) <= limit]
    if not shapes:
        raise ValueError(
            f"search(sram_kib={limit:g}): {pes} elements need at least "
            f"{3 * Buffers.minimum_kib(1, pes):g} KiB, one tile of 32-bit words in each half "
            "of three buffers"
        )

    def found(array: SpatialArray) -> Found:
        with prices_unused():
            cost: Cost = sum(array.cost(product) for product in products)  # pyright: ignore[reportAssignmentType]
        tick()
        waiting = int(cost.stall_cycles or 0)
        words = array.dataflow(array.nest_of(array.seen(products[0]))[0])
        return Found(array, words, cost.cycles + waiting, cost.energy_pj, cost)

    def buffers(split: tuple[int, ...], total: float) -> Buffers:
        i, w, o = (total * share / sum(split) for share in split)
        return Buffers(
            input_kib=i, weight_kib=w, output_kib=o, dram_words_per_cycle=bandwidth
        )

    even = buffers((1, 1, 1), limit)
    nest = LoopNest.of(products[0].canonical_shape)
    candidates = []
    for rows, columns in shapes:
        common = {
            "rows": rows,
            "columns": columns,
            "folds": folds,
            "buffers": even,
            "energy": energy,
        }
        for kept in ("input", "weight", "grad_output", "output"):
            candidates.append(found(SpatialArray(keep=kept, **common)))
        for map in systolic_maps(nest):
            candidates.append(found(SpatialArray(map, **common)))
    best = OBJECTIVES[objective]
    chosen = {id(each): each for each in pareto(candidates)}
    chosen |= {id(each): each for each in sorted(candidates, key=best)[:_BEST]}
    for each in chosen.values():
        least = Buffers.minimum_kib(each.array.rows, each.array.columns)
        for split in _SPLITS:
            for part in _PARTS:
                sized = buffers(split, limit / part)
                if sized != even and min(sized.sizes_kib.values()) >= least:
                    array = each.array.with_buffers(sized)
                    candidates.append(found(array))
    return sorted(
        candidates, key=lambda each: (best(each), each.cycles, each.energy_pj)
    )


def pareto(found: Iterable[Found]) -> list[Found]:
    """Candidates than which none has fewer cycles and less energy, fastest first.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> front = pareto(search(MatmulGeometry(64, 96, 32), pes=16))
        >>> all(a.energy_pj > b.energy_pj for a, b in zip(front, front[1:]))
        True
    """
    front: list[Found] = []
    least = math.inf
    for each in sorted(found, key=lambda each: (each.cycles, each.energy_pj)):
        if each.energy_pj < least:
            front.append(each)
            least = each.energy_pj
    return front
