"""Systolic arrays: weight-, output- and input-stationary, exact to the cycle.

An R x C array multiplies ``Z[m, n] = A[m, k] · B[k, n]`` in *folds*: tiles of the two
dimensions that its PEs hold, with the third, of size T, streaming through::

    dataflow  rows hold  columns hold  streams  cycles per fold
    ws        k          n             m        2R + C + T − 2
    is        k          m             n        2R + C + T − 2
    os        m          n             k         R + C + T − 2   drain overlapped
                                                2R + C + T − 2   drain explicit

namely R to load what stays (ws, is) or to shift the results out (os, explicit), R − 1
and C − 1 of skew, and T. A ragged fold costs as much as a full one. These are the forms
of SCALE-Sim (scalesim-project/scale-sim-v2 and release 3.0.0); its os drains under the
next fold, while its authors' paper form charges the drain (scale-sim-v3, issue 4).
:mod:`elision.accelerators.systolic.pe_array` runs the same dataflows register by register.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction

from elision.accelerators.base import Cost, check_integer
from elision.accelerators.numbers import FLOAT32, WORD_BITS, Numbers, numbers_of
from elision.accelerators.systolic.array import SystolicArray
from elision.accelerators.systolic.lowering import (
    FAMILY_OF,
    INPUT_GRADS,
    WEIGHT_GRADS,
    Gemm,
    lower,
)
from elision.accelerators.systolic.phases import output_stationary, stationary
from elision.accelerators.systolic.sram import Buffers, Loop, Stream, Traffic, traffic
from elision.accelerators.timing import Timing
from elision.common.names import lookup
from elision.products import Geometry, LayerProduct

__all__ = ["COUNTINGS", "DATAFLOWS", "DRAINS", "Dataflow", "Systolic", "by_family"]


@dataclass(frozen=True)
class Dataflow:
    """Dimensions of ``Z[m, n] = A[m, k] · B[k, n]`` that the array holds and streams.

    Attributes:
        rows, columns, stream: ``"m"``, ``"k"`` or ``"n"``.

    Example:
        >>> DATAFLOWS["ws"].stays_along("mk")
        'columns'
    """

    rows: str
    columns: str
    stream: str

    def stays_along(self, dimensions: str) -> Loop | None:
        """The fold loop along which a matrix with these dimensions does not change."""
        if self.rows not in dimensions:
            return "rows"
        return "columns" if self.columns not in dimensions else None


#: Dataflows by name.
DATAFLOWS: Mapping[str, Dataflow] = {
    "ws": Dataflow(rows="k", columns="n", stream="m"),
    "os": Dataflow(rows="m", columns="n", stream="k"),
    "is": Dataflow(rows="k", columns="m", stream="n"),
}

#: Drains: results leave under the next fold's computation, or after the fold.
DRAINS = {"overlapped": "under the next fold", "explicit": "rows more cycles a fold"}

#: Ways of counting, and the cycles that each adds to a layer product: none, or one less,
#: the index of the last cycle from zero.
COUNTINGS = {"exact": 0, "scalesim": -1}


_WEIGHT_GRADS = {**WEIGHT_GRADS, "faster": "the form of fewer cycles"}


@dataclass(frozen=True)
class Systolic(SystolicArray):
    """A systolic array of PEs that do one multiply-accumulate a cycle each.

    Value-blind unless ``zero_gating`` is on. Waiting for the DRAM is not in ``cycles``:
    it is counted apart, as the details ``stall_cycles`` and ``fill_cycles``
    (:mod:`elision.accelerators.systolic.sram`). With ``zero_gating``, the detail
    ``zero_multiplies`` counts the multiplies with a zero for a factor, which are not
    issued.

    Accesses are 32-bit words: of the SRAM of each kind of tensor (``input_sram`` holds
    X and dX, ``weight_sram`` W and dW, ``output_sram`` Y and G), of the PEs' registers
    (``register``, words latched while multiplying) and of the ``dram``. Partial sums
    that are added to what is already in the SRAM are read back; SCALE-Sim does not
    count that.

    Attributes:
        rows, columns: PEs (32 x 32, the ``scale`` preset of SCALE-Sim).
        dataflow: ``"ws"``, ``"os"`` or ``"is"``.
        drain: how results leave an output-stationary array: ``"overlapped"`` (a second
            register per PE shifts them out under the next fold) or ``"explicit"``.
        counting: ``"exact"``, or ``"scalesim"`` for comparisons with SCALE-Sim. That
            reports one cycle less per layer product (the index of the last cycle, counted
            from zero), and counts ``ceil((H - R + t)/t)`` outputs along an axis where a
            stride leaves a rest, so a window that hangs over the image's end.
        preload: ws and is only: a second register per PE takes the next fold's
            stationary values under the current fold, so that only the first load is
            charged. An option of our own that SCALE-Sim does not have.
        input_grad: how a convolution's input gradient is lowered: ``"scatter"`` or
            ``"gather"`` (:mod:`elision.accelerators.systolic.lowering`).
        weight_grad: which of the two transposed forms the weight gradient takes,
            ``"XtG"`` (dWᵀ = Xᵀ·G), ``"GtX"`` (dW = Gᵀ·X), or the ``"faster"`` for each
            layer.
        zero_gating: PEs whose operand is zero do not switch: no cycles are saved, the
            energy of the multiply-accumulate is. Needs operands.
        buffers: SRAM sizes and DRAM bandwidth, as
            :class:`~elision.accelerators.systolic.sram.Buffers` or its text form; None: its
            defaults, larger where the array needs it.
        energy: name of an energy table, or path of a TOML file.

    Raises:
        ValueError: a size below 1, an unknown option, or a buffer smaller than one tile
            in each half (the message gives the minimum).

    Example:
        >>> from elision.products import MatmulGeometry, Product
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(10, 8, 8))
        >>> Systolic(8, 8).cost(product).cycles  # 2R + C + T - 2
        32
    """

    rows: int = 32
    columns: int = 32
    dataflow: str = "ws"
    _: KW_ONLY
    drain: str = "overlapped"
    counting: str = "exact"
    preload: bool = False
    input_grad: str = "scatter"
    weight_grad: str = "XtG"
    zero_gating: bool = False
    buffers: Buffers | str | float | None = None
    energy: str = "horowitz-45nm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "rows", "columns")
        lookup("dataflow", self.dataflow, DATAFLOWS)
        lookup("drain", self.drain, DRAINS)
        lookup("counting", self.counting, COUNTINGS)
        lookup("form of the input gradient", self.input_grad, INPUT_GRADS)
        lookup("form of the weight gradient", self.weight_grad, _WEIGHT_GRADS)
        _ = self.memory  # refuses buffers that are too small

    def fold_cycles(self, streamed: int) -> int:
        """Cycles of one fold through which ``streamed`` values pass per row."""
        cycles = self.rows + self.columns + streamed - 2
        loads = self.dataflow != "os" and not self.preload
        drains = self.dataflow == "os" and self.drain == "explicit"
        return cycles + self.rows * (loads or drains)

    def folds(self, gemm: Gemm) -> tuple[int, int]:
        """Turns of the fold loops over the array's rows and columns, of one pass."""
        flow = DATAFLOWS[self.dataflow]
        return (
            math.ceil(getattr(gemm, flow.rows) / self.rows),
            math.ceil(getattr(gemm, flow.columns) / self.columns),
        )

    def cycles(self, gemm: Gemm) -> int:
        """Cycles of a lowered product, every one of them counted."""
        streamed = getattr(gemm, DATAFLOWS[self.dataflow].stream)
        first_load = self.rows if self.preload and self.dataflow != "os" else 0
        return (
            gemm.count * math.prod(self.folds(gemm)) * self.fold_cycles(streamed)
            + first_load
        )

    def lower(self, product: LayerProduct) -> Gemm:
        """The matrix products that this machine makes of a layer product."""
        geometry = product.canonical_shape.geometry
        partial = self.counting == "scalesim"
        forms = WEIGHT_GRADS if self.weight_grad == "faster" else (self.weight_grad,)
        lowered = [
            lower(product.kind, geometry, self.input_grad, form, partial)
            for form in forms
        ]
        return min(lowered, key=self.cycles)

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        gemm = self.lower(product)
        cycles = self.cycles(gemm)
        zeros = gemm.macs - product.counts.valid if self.zero_gating else 0
        issued = gemm.macs - zeros
        n = numbers_of(product.arithmetic)
        bits = by_family(product)
        moved = self._traffic(gemm, bits)
        details = {
            "stall_cycles": moved.stall_cycles,
            "fill_cycles": moved.fill_cycles,
            "folds": gemm.count * math.prod(self.folds(gemm)),
        }
        if self.zero_gating:
            details["zero_multiplies"] = zeros
        latches = n.words(gemm.macs, self._latched(gemm, bits))
        return Cost(
            cycles=cycles + COUNTINGS[self.counting],
            multiplies=issued,
            valid_multiplies=issued,
            multiplier_slots=self.rows * self.columns * cycles,
            operations={n.multiply: issued, n.add: issued},
            accesses={
                **self.sram_accesses(gemm, bits),
                "register.read": latches,
                "register.write": latches,
                "dram.read": moved.reads,
                "dram.write": moved.writes,
            },
            details=details,
            prices_pj=self.prices_for(n),
            area_mm2=self.area_for(n),
        )

    def timing(self, job: tuple[LayerProduct, ...]) -> Timing:
        """Folds of one product; see :meth:`Accelerator.timing`."""
        gemm = self.lower(job[0])
        streamed = getattr(gemm, DATAFLOWS[self.dataflow].stream)
        count = gemm.count * math.prod(self.folds(gemm))
        period = self.fold_cycles(streamed)
        if self.dataflow == "os":
            overlapped = self.drain == "overlapped"
            phases = output_stationary(self.rows, self.columns, streamed, overlapped)
            return Timing(count, period, phases)
        held, moving = ("A", "B") if self.dataflow == "is" else ("B", "A")
        phases = stationary(
            self.rows, streamed, period, held=held, moving=moving, preload=self.preload
        )
        return Timing(count, period, phases, lead=self.rows if self.preload else 0)

    def _latched(self, gemm: Gemm, bits: Mapping[str, Fraction]) -> Fraction:
        """Bits that a PE latches per multiply-accumulate.

        What passes through, and the partial sum, which moves on or stays.
        """
        a, b, z = (bits[family] for family in gemm.families)
        passing = {"ws": a, "is": b, "os": a + b}[self.dataflow]
        return passing + z

    def sram_accesses(self, gemm: Gemm, bits: Mapping[str, Fraction]) -> dict[str, int]:
        """Words read from and written to the SRAM of each tensor.

        A matrix is read once per turn of the fold loop that it stays along; a result is
        written as often, and read back before every write but the first to its place.
        """
        flow = DATAFLOWS[self.dataflow]
        turns = dict(zip(("rows", "columns"), self.folds(gemm), strict=True))
        counts: dict[str, int] = {}
        for family, dimensions in zip(gemm.families, ("mk", "kn", "mn"), strict=True):
            sizes = math.prod(getattr(gemm, dimension) for dimension in dimensions)
            stays = flow.stays_along(dimensions)
            words = gemm.count * sizes * (turns[stays] if stays else 1)
            wide = bits[family]
            if dimensions == "mn":
                back = words - gemm.first_writes
                counts[f"{family}_sram.write"] = Numbers.words(words, wide)
                counts[f"{family}_sram.read"] = Numbers.words(back, wide)
            else:
                counts[f"{family}_sram.read"] = Numbers.words(words, wide)
        return counts

    def _traffic(self, gemm: Gemm, bits: Mapping[str, Fraction]) -> Traffic:
        flow = DATAFLOWS[self.dataflow]
        streams = tuple(
            Stream(
                family,
                float(words * bits[family] / WORD_BITS) / gemm.count,
                flow.stays_along(dimensions),
                result=dimensions == "mn",
            )
            for family, words, dimensions in zip(
                gemm.families, gemm.words, ("mk", "kn", "mn"), strict=True
            )
        )
        rows, columns = self.folds(gemm)
        fold = self.fold_cycles(getattr(gemm, flow.stream))
        return traffic(streams, rows, columns, fold, self.memory, gemm.count)

    def cost_update(self, geometry: Geometry) -> Cost:
        """Cost of the separate optimiser pass ``W ← W − η·dW`` over a layer's weights.

        It reads W and dW and writes W, in SRAM and in DRAM, with one multiply and one
        add per weight. It runs beside the array, so it takes none of the array's
        cycles.
        """
        weights = math.prod(geometry.shape_of("weight"))
        return Cost(
            operations={"multiply": weights, "add": weights},
            accesses={
                "weight_sram.read": 2 * weights,
                "weight_sram.write": weights,
                "dram.read": 2 * weights,
                "dram.write": weights,
            },
            prices_pj=self.prices_for(FLOAT32),
            area_mm2=self.area_mm2,
        )


def by_family(product: LayerProduct) -> dict[str, Fraction]:
    """Bits of a value of each buffer's tensor."""
    bits = numbers_of(product.arithmetic).by_operand(product.kind)
    return {FAMILY_OF[operand]: width for operand, width in bits.items()}
