"""InterGrad: both gradients of a layer in one pass over a systolic array.

The two gradients of a layer read the same tensor, the gradient G of its output:

    dX[m, j] = Σ_o G[m, o]·W[o, j]        dW[o, j] = Σ_m G[m, o]·X[m, j]

With PE (o, j) holding W[o, j] and accumulating dW[o, j], both use the same tile (o, j)
and the same streamed dimension m, so they interleave clock by clock: G enters once and
stays in a PE for two clocks, and the vertical link alternates between a partial sum of
dX and a value of X. One tile of an R x C array takes

    2M + R + C − 2   clocks for M rows of G, two multiply-accumulates a row and PE,
    + R              to load W, while the previous tile's dW leaves on the same links,
    + R              with drain="explicit", where dW leaves on its own,

and there are ⌈O/R⌉·⌈J/C⌉ tiles. A convolution has columns j = (channel, tap row, tap
column): X is unfolded, dX folded back (:mod:`elision.accelerators.systolic.lowering`).

The idea is that of Unnikrishnan and Parhi (ISCAS 2020, arXiv:2002.05529; InterGrad,
IEEE TCAS-I 70(5), 2023): dX weight-stationary, dW output-stationary, interleaved on one
array. The published abstracts give no cycle formula; the one above is derived in
``docs/intergrad.md`` and is this project's own model, as is every option of the class.
"""

import math
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from functools import cached_property

from elision.accelerators.base import Cost, check_integer
from elision.accelerators.numbers import FLOAT32, WORD_BITS, Numbers, numbers_of
from elision.accelerators.systolic.array import SystolicArray, pe_area_um2
from elision.accelerators.systolic.lowering import Gemm, lower
from elision.accelerators.systolic.mixed import SystolicMixed
from elision.accelerators.systolic.phases import interleaved
from elision.accelerators.systolic.sram import Buffers, Stream, Traffic, traffic
from elision.accelerators.systolic.systolic import DRAINS
from elision.accelerators.timing import Timing
from elision.common.checks import number
from elision.common.names import lookup
from elision.products import Geometry, LayerProduct, Product

__all__ = ["InterGrad", "estimated_pe_area_ratio"]


@dataclass(frozen=True)
class InterGrad(SystolicArray):
    """A systolic array that interleaves the two gradients of a layer.

    ``cost_pair`` prices both gradients of one layer; ``cost`` a single product on the
    same array run plainly: weight-stationary, but output-stationary for a weight
    gradient, which is how the first layer, whose input needs no gradient, is run.

    Attributes:
        rows, columns: PEs of the plain array that this one replaces.
        drain: ``"overlapped"`` (dW leaves while the next tile's W enters) or
            ``"explicit"``.
        plain_drain: how a plain output-stationary pass drains, which has no W to load
            meanwhile; None: the same as ``drain``.
        in_array_update: the accumulators start from W and X is scaled by the learning
            rate at the edge, so that what drains is the new W and no separate optimiser
            pass is needed. Plain SGD only: momentum needs state that the array does not
            hold.
        pe_area_ratio: area of an interleaving PE over that of a plain one. Above 1 the
            array shrinks to ``⌊rows/√ratio⌋ x ⌊columns/√ratio⌋``, to stay within the
            plain array's area. The published design does not state it. The default, 1,
            compares at equal PE count; :func:`estimated_pe_area_ratio` derives one from
            a table.
        zero_gating: PEs whose operand is zero do not switch; saves energy, not cycles.
        buffers: SRAM sizes and DRAM bandwidth, see
            :class:`~elision.accelerators.systolic.Systolic`.
        energy: name of an energy table, or path of a TOML file.

    Raises:
        ValueError: a size below 1, an area ratio below 1, an unknown drain, or a buffer
            smaller than one tile in each half.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> layer = MatmulGeometry(4, 8, 8)
        >>> kinds = (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
        >>> InterGrad(8, 8).cost_pair(*(LayerProduct(kind, layer) for kind in kinds)).cycles
        30
    """

    rows: int = 32
    columns: int = 32
    _: KW_ONLY
    drain: str = "overlapped"
    plain_drain: str | None = None
    in_array_update: bool = False
    pe_area_ratio: float = 1.0
    zero_gating: bool = False
    buffers: Buffers | str | float | None = None
    energy: str = "horowitz-45nm"
    interleaves = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "rows", "columns")
        lookup("drain", self.drain, DRAINS)
        lookup("drain", self.plain_drain or self.drain, DRAINS)
        number("InterGrad", "pe_area_ratio", self.pe_area_ratio, ">= 1")
        _ = self.memory  # refuses buffers that are too small

    @property
    def array_rows(self) -> int:
        """Rows of PEs that fit into the plain array's area."""
        return max(1, math.floor(self.rows / math.sqrt(self.pe_area_ratio)))

    @property
    def array_columns(self) -> int:
        """Columns of PEs that fit into the plain array's area."""
        return max(1, math.floor(self.columns / math.sqrt(self.pe_area_ratio)))

    @cached_property
    def plain(self) -> SystolicMixed:
        """The same array without interleaving; the baseline at equal PE count."""
        return SystolicMixed(
            self.array_rows,
            self.array_columns,
            drain=self.plain_drain or self.drain,
            zero_gating=self.zero_gating,
            buffers=self.memory,
            energy=self.energy,
        )

    @cached_property
    def memory(self) -> Buffers:
        """The buffers in use."""
        return Buffers.given(self.buffers, self.array_rows, self.array_columns)

    @cached_property
    def area_mm2(self) -> float | None:
        """Area of the PEs; None if the energy table has no areas."""
        return self._area_for(FLOAT32)

    def _area_for(self, *formats: Numbers) -> float | None:
        """Area of the PEs for the widest of some formats."""
        areas = [pe_area_um2(self.energy, n=n) for n in formats]
        if None in areas:
            return None
        plain = self.array_rows * self.array_columns * max(a for a in areas if a)
        return plain * self.pe_area_ratio / 1e6

    def tile_cycles(self, streamed: int) -> int:
        """Clocks of one tile with ``streamed`` rows of G, load and drain included."""
        moves = 2 if self.drain == "explicit" else 1
        rows, columns = self.array_rows, self.array_columns
        return 2 * streamed + rows + columns - 2 + moves * rows

    def folds(self, gemm: Gemm) -> tuple[int, int]:
        """Tiles along the array's rows (filters) and columns (weights of a filter)."""
        return (
            math.ceil(gemm.k / self.array_rows),
            math.ceil(gemm.n / self.array_columns),
        )

    @property
    def multiplier_count(self) -> int:
        """PEs that fit into the plain array's area, of one multiplier each."""
        return self.array_rows * self.array_columns

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product run plainly, without a partner."""
        n = numbers_of(product.arithmetic)
        return self.plain.run(product) + Cost(area_mm2=self._area_for(n))

    def cost_update(self, geometry: Geometry) -> Cost:
        """Cost of a separate optimiser pass; see :meth:`SystolicMixed.cost_update`."""
        return self.plain.cost_update(geometry) + Cost(area_mm2=self.area_mm2)

    def run_pair(self, input_grad: LayerProduct, weight_grad: LayerProduct) -> Cost:
        """Cost of both gradients of one layer, interleaved.

        Args:
            input_grad: may come without operands unless zeros are gated.
            weight_grad: of the same layer; likewise.

        Raises:
            ValueError: the two are not the input and the weight gradient of one layer.
        """
        _check_pair(input_grad, weight_grad)
        gemm = lower(Product.INPUT_GRAD, input_grad.geometry)  # m = M, k = O, n = J
        row_tiles, column_tiles = self.folds(gemm)
        macs = 2 * gemm.macs
        pair = (input_grad, weight_grad)
        own = [p.counts.valid if self.zero_gating else gemm.macs for p in pair]
        issued = sum(own)
        dx, dw = (numbers_of(p.arithmetic) for p in pair)

        g_reads = gemm.count * gemm.m * gemm.k * column_tiles
        x_reads = gemm.count * gemm.m * gemm.n * row_tiles
        weights = gemm.words[1]
        folds = row_tiles * column_tiles
        cycles = gemm.count * folds * self.tile_cycles(gemm.m)
        moved = self._traffic(gemm, row_tiles, column_tiles, dx, dw)
        latches = Numbers.words(gemm.macs, _latched_bits(dx, dw))
        scalings = x_reads if self.in_array_update else 0
        details = {
            "stall_cycles": moved.stall_cycles,
            "fill_cycles": moved.fill_cycles,
            "folds": gemm.count * folds,
        }
        if self.zero_gating:
            details["zero_multiplies"] = macs - issued
        return Cost(
            cycles=cycles,
            multiplies=issued,
            valid_multiplies=issued,
            multiplier_slots=self.array_rows * self.array_columns * cycles,
            operations=_added(
                {dx.multiply: own[0]},
                {dw.multiply: own[1]},
                {dx.add: own[0]},
                {dw.add: own[1]},
                {"multiply": scalings} if scalings else {},
            ),
            accesses={
                "output_sram.read": Numbers.words(g_reads, _gradient_bits(dx, dw)),
                "weight_sram.read": Numbers.words(weights, dx.second),
                "weight_sram.write": Numbers.words(weights, dw.sums),
                # X, and the partial sums of dX that are added to
                "input_sram.read": Numbers.words(x_reads, dw.second)
                + Numbers.words(x_reads - gemm.first_writes, dx.sums),
                "input_sram.write": Numbers.words(x_reads, dx.sums),
                "register.read": latches,
                "register.write": latches,
                "dram.read": moved.reads,
                "dram.write": moved.writes,
            },
            details=details,
            prices_pj=self.plain.prices_for(FLOAT32)
            | self.plain.prices_for(dx)
            | self.plain.prices_for(dw),
            area_mm2=self._area_for(dx, dw),
        )

    def timing(self, job: tuple[LayerProduct, ...]) -> Timing:
        """Tiles of a pair of gradients, or folds of a product run plainly."""
        if len(job) == 1:
            return self.plain.timing(job)
        gemm = lower(Product.INPUT_GRAD, job[0].canonical_shape.geometry)
        period = self.tile_cycles(gemm.m)
        phases = interleaved(
            self.array_rows,
            self.array_columns,
            gemm.m,
            period,
            self.drain == "overlapped",
        )
        return Timing(gemm.count * math.prod(self.folds(gemm)), period, phases)

    def _traffic(
        self, gemm: Gemm, row_tiles: int, column_tiles: int, dx: Numbers, dw: Numbers
    ) -> Traffic:
        g, w, x = gemm.words

        def words(values: int, bits: Fraction) -> float:
            return float(values * bits / WORD_BITS) / gemm.count

        streams = (
            Stream("output", words(g, _gradient_bits(dx, dw)), "columns"),
            Stream("weight", words(w, dx.second), None),
            Stream("weight", words(w, dw.sums), None, result=True),
            Stream("input", words(x, dw.second), "rows"),
            Stream("input", words(x, dx.sums), "rows", result=True),
        )
        fold = self.tile_cycles(gemm.m)
        memory = self.memory
        return traffic(streams, row_tiles, column_tiles, fold, memory, gemm.count)


def _gradient_bits(dx: Numbers, dw: Numbers) -> Fraction:
    """Bits of a value of G, which is loaded once for both products: the wider form."""
    return max(dx.first, dw.first)


def _latched_bits(dx: Numbers, dw: Numbers) -> Fraction:
    """Bits that a PE latches per row of G: G, a partial sum, X, and the accumulator."""
    return _gradient_bits(dx, dw) + dx.sums + dw.second + dw.sums


def _added(*counts: dict[str, int]) -> dict[str, int]:
    """Counts by name, those of one name added."""
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _check_pair(input_grad: LayerProduct, weight_grad: LayerProduct) -> None:
    kinds = (input_grad.kind, weight_grad.kind)
    if kinds != (Product.INPUT_GRAD, Product.WEIGHT_GRAD):
        raise ValueError(
            "cost_pair takes an input gradient and a weight gradient, got "
            f"{input_grad.kind.value} and {weight_grad.kind.value}"
        )
    if (
        input_grad.geometry != weight_grad.geometry
        or input_grad.name != weight_grad.name
    ):
        raise ValueError(
            "cost_pair takes the two gradients of one layer, got "
            f"{input_grad!r} and {weight_grad!r}"
        )


def estimated_pe_area_ratio(energy: str = "aladdin-40nm") -> float:
    """Area of an interleaving PE over a plain one: one more accumulator register.

    The multiplexer in front of the accumulator and the control are not priced by the
    tables, so this is a lower bound.

    Raises:
        ValueError: the energy table has no areas.
    """
    plain = pe_area_um2(energy)
    wider = pe_area_um2(energy, accumulators=2)
    if not plain or not wider:
        raise ValueError(
            f"energy table {energy!r} has no area of a multiplier, an adder and a "
            "register bit to derive the ratio from"
        )
    return wider / plain
