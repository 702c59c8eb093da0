"""The spatial array as an accelerator: any space-time map, on real layers.

The map says which loops are the array's sides and what stays in its elements; the nest
comes from the layer, either as it is or lowered to matrix products; the layer is cut into
folds (:mod:`elision.accelerators.spatial.folding`). The weight-, input- and
output-stationary arrays of :mod:`elision.accelerators.systolic` are special cases.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from elision.accelerators.base import Cost, check_integer
from elision.accelerators.numbers import WORD_BITS, Numbers, numbers_of
from elision.accelerators.spatial.buffers import IoNetwork
from elision.accelerators.spatial.classes import dataflow
from elision.accelerators.spatial.derived import links, ports, touched
from elision.accelerators.spatial.folding import FOLDS, Folding
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import Access, LoopNest, Tensor
from elision.accelerators.spatial.simulate import Run, simulate
from elision.accelerators.systolic.array import SystolicArray
from elision.accelerators.systolic.lowering import (
    FAMILY_OF,
    INPUT_GRADS,
    Gemm,
    fold_result,
    lower,
    matrices,
)
from elision.accelerators.systolic.sram import Buffers, Stream, Traffic, traffic
from elision.accelerators.systolic.systolic import by_family
from elision.accelerators.timing import Timing
from elision.common.names import lookup
from elision.products import LayerProduct

__all__ = ["FORMS", "KEPT", "SpatialArray", "TensorRow"]

#: What an array can keep: a tensor of the layer, or the result of each product.
KEPT = {
    "input": "X or its gradient",
    "weight": "W or its gradient",
    "grad_output": "Y or G",
    "output": "the result of each product",
}

#: Nests that a layer is mapped from.
FORMS = {
    "lowered": "matrix products of the unfolded image: i, j, k",
    "direct": "the convolution itself: n, k, c, p, q, r, s",
}

#: Iterations of a product up to which it is simulated.
_SIMULATED = 1 << 26


class TensorRow(NamedTuple):
    """What an array does with one tensor of a nest.

    Attributes:
        tensor: its name.
        kind: ways along its reuse vectors, ``"stationary"``, ``"systolic"``,
            ``"multicast"`` or ``"tree"``.
        hop: step in the array of the first that moves; empty if none does.
        registers: on that link, in cycles of delay.
        stored: words that an element keeps.
        ports: elements at the edge where it enters or leaves.
        words: elements that enter or leave over all folds.

    Example:
        >>> nest = LoopNest.matmul(8, 8, 8)
        >>> array = SpatialArray(SpaceTimeMap.keeping(nest, "C"), rows=4, columns=4)
        >>> for row in array.describe(nest):
        ...     print(row.tensor, row.kind, row.hop, row.stored, row.ports, row.words)
        A systolic (0, 1) 0 4 128
        B systolic (1, 0) 0 4 128
        C stationary () 1 16 64
    """

    tensor: str
    kind: str
    hop: tuple[int, ...]
    registers: int
    stored: int
    ports: int
    words: int


@dataclass(frozen=True)
class SpatialArray(SystolicArray):
    """An array of PEs that does a loop nest by a space-time map.

    Value-blind unless ``zero_gating`` is on. ``cycles`` and ``stall_cycles`` are counted
    as by :class:`~elision.accelerators.Systolic`, and so are accesses: 32-bit words of the
    SRAM of each tensor, of the registers that values pass through and of the ``dram``.

    Attributes:
        map: the map, for the loops of the layer's nest
            (:meth:`~elision.accelerators.spatial.LoopNest.of`) or of the lowered one
            (``i``, ``j``, ``k``); None: the systolic map that keeps ``keep``.
        rows, columns: PEs (32 x 32, as of a systolic array).
        folds: how tiles follow one another: ``"pipelined"``, ``"overlapped"``,
            ``"drained"``, or ``"none"`` to refuse a layer that is larger than the array
            (:mod:`elision.accelerators.spatial.folding`).
        keep: what stays in the PEs where no map is given: ``"input"``, ``"weight"``,
            ``"grad_output"`` of the layer, or ``"output"``, the result of each product.
        form: ``"lowered"`` to matrix products, or ``"direct"``; of no meaning with a map,
            which names its loops.
        input_grad: how a lowered input gradient is formed, ``"scatter"`` or ``"gather"``,
            see :class:`~elision.accelerators.Systolic`.
        zero_gating: PEs whose operand is zero do not switch: no cycles are saved, the
            energy of the multiply-accumulate is. Needs operands.
        buffers: double-buffered SRAMs and DRAM bandwidth, see
            :class:`~elision.accelerators.Systolic`.
        networks: chains of stages between the SRAMs and the array
            (:class:`~elision.accelerators.spatial.buffers.IoNetwork`); a tensor without
            one has a port for each lane and sends every element once a fold. The first
            stage of a chain sends it once for every turn of the reuse loops that it has
            not removed; scattering and gathering take cycles at the ends of a fold, of
            pipelined and overlapped folds once in all.
        energy: name of an energy table, or path of a TOML file.

    Raises:
        ValueError: a size below 1, an unknown option, or a buffer smaller than one tile in
            each half (the message gives the minimum); from :meth:`cost`, a layer whose
            nest has other loops than the map.

    Example:
        >>> from elision.products import MatmulGeometry, Product
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(10, 8, 8))
        >>> SpatialArray(rows=8, columns=8, folds="drained").cost(product).cycles
        32
        >>> [SpatialArray(rows=8, columns=8, keep=kept).cost(product).cycles
        ...  for kept in ("weight", "input", "output")]
        [32, 38, 38]
    """

    map: SpaceTimeMap | None = None
    rows: int = 32
    columns: int = 32
    _: KW_ONLY
    folds: str = "pipelined"
    keep: str = "weight"
    form: str = "lowered"
    input_grad: str = "scatter"
    zero_gating: bool = False
    buffers: Buffers | str | float | None = None
    networks: tuple[IoNetwork, ...] = ()
    energy: str = "horowitz-45nm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "rows", "columns")
        lookup("way of folding", self.folds, FOLDS)
        lookup("tensor to keep", self.keep, KEPT)
        lookup("form of the nest", self.form, FORMS)
        lookup("form of the input gradient", self.input_grad, INPUT_GRADS)
        _ = self.memory  # refuses buffers that are too small

    def seen(self, product: LayerProduct) -> LayerProduct:
        """The product as the machine sees it.

        In canonical form, unless the map names loops that this form has not: a map of a
        convolution's loops is one of the layer as it is written.
        """
        seen = super().seen(product)
        if self.map is None or self._fits(LoopNest.of(seen)):
            return seen
        if not self._fits(LoopNest.of(product)):
            return seen
        return (
            replace(product, first=None, second=None) if self.value_blind else product
        )

    def _fits(self, nest: LoopNest) -> bool:
        """Whether the nest has the loops that the map is for."""
        assert self.map is not None
        rows = (
            row for row in (*self.map.space, self.map.time) if isinstance(row, tuple)
        )
        return self.map.names() <= nest.loops.keys() and all(
            len(row) == len(nest.loops) for row in rows
        )

    def nest_of(self, product: LayerProduct) -> tuple[LoopNest, Gemm | None]:
        """The nest that the array does, and the lowered product if it is one.

        Raises:
            ValueError: neither the layer's nest nor the lowered one has the map's loops.
        """
        direct = self.form == "direct"
        if self.map is not None:
            own = LoopNest.of(product)
            direct = self._fits(own)
        if direct:
            return LoopNest.of(product), None
        gemm = lower(product.kind, product.geometry, self.input_grad)
        nest = _lowered(gemm)
        if self.map is not None and not self._fits(nest):
            loops = dict.fromkeys((*LoopNest.of(product).loops, *nest.loops))
            for name in sorted(self.map.names()):
                lookup(f"loop of {product!r}", name, loops)
            self.map.matrix(nest)  # says which row has another length
            raise ValueError(
                f"{product!r}: its loops are {', '.join(LoopNest.of(product).loops)}, or "
                f"{', '.join(nest.loops)} lowered; the map is for "
                f"{', '.join(sorted(self.map.names()))}"
            )
        return nest, gemm

    def folding(self, product: LayerProduct) -> Folding:
        """How a product is cut into folds.

        Raises:
            ValueError: as :meth:`nest_of`, an array too small for a map or for
                ``folds="none"``, or an I/O network that is illegal for the nest (names
                the stage and the reason).
        """
        return self.folding_of(self.nest_of(product)[0])

    def folding_of(self, nest: LoopNest) -> Folding:
        """How a nest is cut into folds; errors as :meth:`folding`."""
        map = self.map or SpaceTimeMap.keeping(nest, self.keep)
        folding = _folding(nest, map, self.rows, self.columns, self.folds)
        for network in self.networks:
            network.check(nest.resized(folding.tile), map)
        return folding

    def _ends(self, folding: Folding) -> int:
        """Cycles in which networks scatter and gather and nothing else is done."""
        one = folding.nest.resized(folding.tile) if self.networks else folding.nest
        ends = sum(network.extra_cycles(one) for network in self.networks)
        return ends * (folding.count if folding.folds == "drained" else 1)

    def _repeats(self, folding: Folding, tensor: Tensor) -> int:
        """Times that a tensor's network sends an element in a fold."""
        nest = folding.nest
        for network in self.networks:
            if nest.tensor(network.tensor) == tensor:
                written = tensor == nest.output
                removed = network.stages[-1 if written else 0].removed
                kept = (n for n in nest.reused_along(tensor) if n not in removed)
                return math.prod(folding.tile[loop] for loop in kept)
        return 1

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        nest, gemm = self.nest_of(product)
        folding = self.folding_of(nest)
        n = numbers_of(product.arithmetic)
        bits = by_family(product)
        macs = nest.iterations
        cycles = folding.cycles + self._ends(folding)
        zeros = macs - product.counts.valid if self.zero_gating else 0
        moved = self._traffic(folding, gemm, bits)
        details = {
            "stall_cycles": moved.stall_cycles,
            "fill_cycles": moved.fill_cycles,
            "folds": folding.count,
        }
        if self.zero_gating:
            details["zero_multiplies"] = zeros
        latches = n.words(macs, self._latched(folding, bits))
        return Cost(
            cycles=cycles,
            multiplies=macs - zeros,
            valid_multiplies=macs - zeros,
            multiplier_slots=self.rows * self.columns * cycles,
            operations={n.multiply: macs - zeros, n.add: macs - zeros},
            accesses={
                **self._sram(folding, gemm, bits),
                "register.read": latches,
                "register.write": latches,
                "dram.read": moved.reads,
                "dram.write": moved.writes,
            },
            details=details,
            prices_pj=self.prices_for(n),
            area_mm2=self.area_for(n),
        )

    def _latched(self, folding: Folding, bits: Mapping[str, Fraction]) -> Fraction:
        """Bits that a PE latches per iteration: what passes through, and a sum."""
        latched = Fraction(0)
        for tensor, letter in folding.letters.items():
            written = tensor == folding.nest.output
            if letter == "S" or (written and letter == "T"):
                if tensor == folding.kept and not written:
                    continue
                latched += bits[FAMILY_OF[tensor]]
        return latched

    def _sram(
        self, folding: Folding, gemm: Gemm | None, bits: Mapping[str, Fraction]
    ) -> dict[str, int]:
        """Words read from and written to the SRAM of each tensor."""
        counts: dict[str, int] = {}
        for tensor in folding.nest.accesses:
            family = FAMILY_OF[tensor]
            words, wide = folding.words(tensor), bits[family]
            sent = words * self._repeats(folding, tensor)
            if tensor == folding.nest.output:
                first = gemm.first_writes if gemm else touched(folding.nest, tensor)
                counts[f"{family}_sram.write"] = Numbers.words(sent, wide)
                counts[f"{family}_sram.read"] = Numbers.words(words - first, wide)
            else:
                counts[f"{family}_sram.read"] = Numbers.words(sent, wide)
        return counts

    def _traffic(
        self, folding: Folding, gemm: Gemm | None, bits: Mapping[str, Fraction]
    ) -> Traffic:
        """Words of the DRAM, and cycles of waiting for it."""
        sides = folding.sides
        if gemm is not None and sides is not None and len(sides) == 2 and folding.kept:
            return self._traffic_of_gemm(folding, gemm, bits)
        free = {
            tensor: self.memory.sizes_kib[FAMILY_OF[tensor]]
            * (1024 * 8 / 2)
            / float(bits[FAMILY_OF[tensor]])
            for tensor in folding.nest.accesses
        }
        narrow = {t: bits[FAMILY_OF[t]] for t in folding.nest.accesses}
        best = None
        for order in folding.orders():
            moved = folding.moved(order, free)
            reads = sum(Numbers.words(m.reads, narrow[t]) for t, m in moved.items())
            writes = sum(Numbers.words(m.writes, narrow[t]) for t, m in moved.items())
            if best is None or reads + writes < sum(best):
                best = reads, writes
        assert best is not None
        bandwidth = self.memory.dram_words_per_cycle
        busy = math.ceil(sum(best) / bandwidth)
        # The first tile of each operand arrives before, the last result leaves after.
        ends = sum(folding.footprint(t, folding.tile) for t in folding.nest.accesses)
        stalls = max(0, busy - folding.cycles)
        return Traffic(*best, stalls, math.ceil(min(ends, sum(best)) / bandwidth))

    def _traffic_of_gemm(
        self, folding: Folding, gemm: Gemm, bits: Mapping[str, Fraction]
    ) -> Traffic:
        """DRAM traffic of lowered products: of images, not of what they unfold to."""
        assert folding.sides is not None
        nest = folding.nest
        streams = []
        for family, words in zip(gemm.families, gemm.words, strict=True):
            tensor = _TENSOR_OF[family]
            stays = [not nest.indexes(tensor, side) for side in folding.sides]
            along = "rows" if stays[0] else "columns" if stays[1] else None
            share = float(words * bits[family] / WORD_BITS) / gemm.count
            streams.append(Stream(family, share, along, tensor == nest.output))
        rows, columns = (folding.turns[side] for side in folding.sides)
        period = folding.period
        return traffic(tuple(streams), rows, columns, period, self.memory, gemm.count)

    def timing(self, job: tuple[LayerProduct, ...]) -> Timing:
        """Folds of one product; see :meth:`Accelerator.timing`."""
        folding = self.folding(self.seen(job[0]) if len(job) == 1 else job[0])
        names = [tensor for tensor in folding.nest.inputs if tensor != folding.kept]
        timing = folding.timing(" and ".join(names), folding.kept or "nothing")
        ends = self._ends(folding)
        if folding.folds == "drained":
            return timing._replace(period=timing.period + ends // folding.count)
        return timing._replace(lead=timing.lead + ends)

    def describe(self, nest: LoopNest) -> list[TensorRow]:
        """What the array does with each tensor of a nest.

        Links and storage are those of one fold.

        Raises:
            ValueError: as :meth:`folding`.
        """
        folding = self.folding_of(nest)
        one = nest.resized(folding.tile)
        rows = []
        for tensor in nest.tensors:
            found = links(one, folding.map, tensor)
            moving = next((link for link in found if any(link.hop)), None)
            kinds = dict.fromkeys(link.kind for link in found if link is moving) or (
                dict.fromkeys(link.kind for link in found)
            )
            rows.append(
                TensorRow(
                    tensor,
                    ", ".join(kinds) or "used once",
                    moving.hop if moving else (),
                    moving.delay if moving else 0,
                    folding.stored if tensor == folding.kept else 0,
                    self._ports(one, folding, tensor),
                    folding.words(tensor) * self._repeats(folding, tensor),
                )
            )
        return rows

    def _ports(self, one: LoopNest, folding: Folding, tensor: Tensor) -> int:
        """Ports of a tensor: those of its network's stage at the array, or of the map."""
        for network in self.networks:
            if one.tensor(network.tensor) == tensor:
                stage = 0 if tensor == one.output else len(network.stages) - 1
                return network.ports(one, folding.map, stage)
        return ports(one, folding.map, tensor)

    def dataflow(self, nest: LoopNest) -> str:
        """The map of a nest in words; errors as :meth:`folding`."""
        return dataflow(nest, self.folding_of(nest).map)

    def simulate(self, product: LayerProduct) -> Run:
        """The product, value by value: every fold by its registers, the folds in turn.

        Cycles are those of the array's clock. A fold begins when the array is free for it,
        which is checked element by element, and a ragged one passes through all of it.

        Args:
            product: with operands; small, up to 2²⁶ multiply-accumulates.

        Returns:
            A :class:`~elision.accelerators.spatial.simulate.Run` whose values are the
            result in the layer's own shape.

        Raises:
            ValueError: no operands, a product that is too large, or as :meth:`folding`.
            AssertionError: the map is illegal: what arrived was not what was needed.
        """
        if product.first is None:
            raise ValueError(
                f"{product!r}: a simulation needs the operands, which are None"
            )
        nest, gemm = self.nest_of(product)
        if nest.iterations > _SIMULATED:
            raise ValueError(
                f"{product!r}: {nest.iterations:,} multiply-accumulates are too many to "
                f"simulate value by value (up to {_SIMULATED:,})"
            )
        folding = self.folding_of(nest)
        run = _simulated(folding, _values(nest, gemm, product))
        run.values = _result(run.values, gemm, product)
        return run


_TENSOR_OF = {family: operand for operand, family in FAMILY_OF.items()}


@lru_cache(maxsize=4096)
def _lowered(gemm: Gemm) -> LoopNest:
    """The nest of a lowered product, its matrices named by the layer's tensors."""
    loops = {"i": gemm.m, "j": gemm.n, "k": gemm.k}
    group = ()
    if gemm.count > 1:
        loops = {"g": gemm.count, **loops}
        group = ("g",)
    accesses: dict[Tensor, Access] = {}
    for family, indices in zip(gemm.families, ("ik", "kj", "ij"), strict=True):
        shape = tuple(loops[loop] for loop in (*group, *indices))
        named = Access.parse((*group, *indices), loops, shape)
        accesses[_TENSOR_OF[family]] = named
    return LoopNest(loops, accesses, _TENSOR_OF[gemm.families[2]])


@lru_cache(maxsize=4096)
def _folding(
    nest: LoopNest, map: SpaceTimeMap, rows: int, columns: int, folds: str
) -> Folding:
    return Folding(nest, map, rows, columns, folds)


def _values(
    nest: LoopNest, gemm: Gemm | None, product: LayerProduct
) -> dict[Tensor, np.ndarray]:
    """The operands in the nest's shapes."""
    operands = {name: _array(value) for name, value in product.operands.items()}
    if gemm is None:
        return {n: v.reshape(nest.tensor_shape(n)) for n, v in operands.items()}
    whole = _all_integers(operands)
    pair = zip(gemm.families, matrices(product), strict=False)
    return {
        _TENSOR_OF[family]: value.astype(np.int64 if whole else np.float64).reshape(
            nest.tensor_shape(_TENSOR_OF[family])
        )
        for family, value in pair
    }


def _array(value: object) -> np.ndarray:
    """A tensor of any library as a numpy array."""
    detach = getattr(value, "detach", None)
    return np.asarray(value if detach is None else detach().cpu().numpy())


def _all_integers(operands: Mapping[str, np.ndarray]) -> bool:
    return all(value.dtype.kind in "iub" for value in operands.values())


def _result(values: np.ndarray, gemm: Gemm | None, product: LayerProduct) -> np.ndarray:
    """The result of a nest in the layer's own shape."""
    if gemm is None:
        return values.reshape(product.result_shape)
    stacked = values.reshape(gemm.count, gemm.m, gemm.n)
    folded = fold_result(stacked.astype(np.float64), product.kind, product.geometry)
    return folded.numpy().astype(values.dtype).reshape(product.result_shape)


def _simulated(folding: Folding, operands: Mapping[Tensor, np.ndarray]) -> Run:
    """Every fold in turn, its sums added to what is in memory."""
    nest = folding.nest
    starts = [range(0, n, folding.tile[loop]) for loop, n in nest.loops.items()]
    total: Run | None = None
    free: dict[tuple[int, ...], int] = {}
    clock = 0
    used: set[tuple[int, ...]] = set()
    for fold, corner in enumerate(np.ndindex(*(len(s) for s in starts))):
        origin = {
            loop: starts[axis][corner[axis]] for axis, loop in enumerate(nest.loops)
        }
        extents = {
            loop: min(folding.tile[loop], n - origin[loop])
            for loop, n in nest.loops.items()
        }
        tile = nest.tile(origin, extents)
        run = simulate(tile, folding.map, operands)
        begin = folding.start + fold * folding.period
        clock = begin + folding.makespan
        used |= _occupy(folding, tile, begin, free)
        if total is None:
            total = run
            continue
        total.values = total.values + run.values
        total.reads += run.reads
        total.writes += run.writes
        total.macs += run.macs
        total.peak = {t: max(total.peak[t], run.peak[t]) for t in run.peak}
    assert total is not None
    drained = folding.moves if folding.kept == nest.output else 0
    total.cycles = clock + (0 if folding.folds == "overlapped" else drained)
    total.elements = len(used)
    return total


def _occupy(
    folding: Folding, tile: LoopNest, begin: int, free: dict[tuple[int, ...], int]
) -> set[tuple[int, ...]]:
    """Check that every element is free when a fold begins on it, and mark it busy.

    Its iterations are within ``pace`` cycles of its first one, the skew.
    """
    if folding.sides is None:
        box = np.indices(tile.extents).reshape(len(tile.extents), -1)
        places = np.array(folding.map.space_rows(tile)) @ box
        return {tuple(map(int, place)) for place in places.T}
    time = folding.map.time_row(tile)
    used = set()
    for place in np.ndindex(*(tile.loops[side] for side in folding.sides)):
        skew = sum(
            abs(time[tile.loop(side)]) * at
            for side, at in zip(folding.sides, place, strict=True)
        )
        if begin + skew < free.get(place, 0):
            raise AssertionError(f"element {place} is busy when the next fold begins")
        free[place] = begin + skew + folding.pace
        used.add(place)
    return used
