"""SCNN: an outer-product accelerator for operands that are both sparse."""

import logging
import math
from dataclasses import dataclass
from functools import cache

from elision.accelerators.base import (
    Accelerator,
    Cost,
    ceil_div,
    check_integer,
    check_positive,
    planar,
    squarest_grid,
)
from elision.accelerators.energy import energy_table
from elision.accelerators.numbers import numbers_of
from elision.accelerators.outer.planar import PlanarPlan, planar_counts
from elision.accelerators.outer.plane_pair import PlanePairs
from elision.accelerators.outer.planes import (
    OuterProduct,
    is_folded,
    laid_out,
    plane_bits,
    planes_of,
)
from elision.common.names import lookup
from elision.products import LayerProduct, MatmulGeometry, Product

__all__ = ["FOLDED", "Scnn"]

#: What is said of a cost in which a product was folded.
FOLDED = (
    "SCNN's planar mapping folds a fully connected layer of one row into planes of 16x16, "
    "as its public simulator does: nearly all products are redundant, and it takes about 25 "
    "times the cycles of a dense array at 90 % zeros, 256 times without zeros"
)

logger = logging.getLogger(__name__)

#: Weight buffer of one element: 50 entries (SCNN), of 32 bits (this project's choice).
_WEIGHT_FIFO_KIB = 50 * 4 / 1024


@dataclass(frozen=True, kw_only=True)
class Scnn(Accelerator):
    """SCNN (Parashar et al., ISCA 2017), with a second mapping for training.

    Each element multiplies a vector of non-zero image values with a vector of non-zero
    kernel values, all with all, and scatters the products to banked accumulators.
    Products that belong to no output (RCPs) are computed like the others.

    ``mapping="plane-pair"`` (default; this project's own, see
    :mod:`elision.accelerators.outer.plane_pair`) gives each element whole planes. It suits
    all three products of training and is the baseline for ANT.

    ``mapping="planar"`` is the paper's: image tiles on the grid, barriers and halos
    (see :mod:`elision.accelerators.outer.planar`). A matrix product is a 1x1 convolution
    over one image of its rows, as square as can be; one of a single row, which has no
    image, is folded as a public simulator folds it, at about 25 times the cycles of a
    dense array (90 % zeros; 256 times without zeros), which its cost notes. In a weight
    gradient the input channels are the samples, the samples the channels and the
    gradients the kernels; no halos are exchanged.

    Attributes:
        mapping: ``"plane-pair"`` or ``"planar"``.
        conflicts: planar only. ``"serialised"``: valid products for one accumulator
            bank wait for one another; ``"ideal"``: every step takes one cycle.
        barrier: planar only, when the elements wait for the slowest. ``"channel"``:
            after every input channel, as a public simulator has it; ``"group"``: after
            the channels of a group of filters, as the paper is described.
        grid: processing elements (8, 8); the plane-pair mapping uses their number.
        multipliers: side of each element's multiplier array (4: SCNN's F = I = 4).
        accumulator_entries: planar only, outputs that one element holds (32 banks of
            32). A public simulator's default of 6,144 is the size in bytes.
        startup_cycles: plane-pair only, cycles before the first product of a pair.
        skip_empty_pairs: True if a pair with an all-zero plane costs no start-up.
        matmul_tile: plane-pair only, how the values of a matrix product meet. None: by
            their summation index, as the channels of a 1x1 convolution do, so that
            nothing is redundant. A number: all values of two planes meet, one of so many
            rows of the first matrix and one of so many columns of the second, whatever
            their indices (32: the 1,024 accumulators of an element hold the results). No
            public source says which one ANT's baseline does.
        buffer_kib: buffer of one operand in each element (10: SCNN's IARAM).
        accumulator_kib: one accumulator bank (32 entries of 3 bytes, twice: SCNN).
        global_kib: buffer that all elements share (1 MB: SCNN's data capacity).
        energy: name of an energy table, or path of a TOML file.

    Example:
        >>> import numpy as np
        >>> from elision.products import Conv2dGeometry
        >>> ones = [np.ones(shape, np.float32) for shape in ((1, 1, 3, 3), (1, 1, 2, 2))]
        >>> geometry = Conv2dGeometry(1, 1, 3, 3, 1, 2)
        >>> cost = Scnn().cost(LayerProduct(Product.FORWARD, geometry, *ones))
        >>> cost.multiplies, cost.valid_multiplies
        (36, 16)
    """

    mapping: str = "plane-pair"
    conflicts: str = "serialised"
    barrier: str = "channel"
    grid: tuple[int, int] = (8, 8)
    multipliers: int = 4
    accumulator_entries: int = 1024
    startup_cycles: int = 0
    skip_empty_pairs: bool = False
    matmul_tile: int | None = None
    buffer_kib: float = 10.0
    accumulator_kib: float = 0.1875
    global_kib: float = 1024.0
    energy: str = "horowitz-45nm"
    swept_as = {"elements": ("grid", squarest_grid)}

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup("mapping of Scnn", self.mapping, {"plane-pair": 0, "planar": 0})
        lookup("conflicts of Scnn", self.conflicts, {"serialised": 0, "ideal": 0})
        lookup("barrier of Scnn", self.barrier, {"channel": 0, "group": 0})
        check_integer(self, 1, "multipliers", "accumulator_entries")
        check_integer(self, 0, "startup_cycles")
        check_positive(self, "buffer_kib", "accumulator_kib", "global_kib")
        if self.matmul_tile is not None:
            check_integer(self, 1, "matmul_tile")
            if self.mapping == "planar":
                raise ValueError(
                    f"Scnn(mapping='planar', matmul_tile={self.matmul_tile}): tiles belong "
                    f"to the mapping 'plane-pair'; leave matmul_tile out"
                )
        if min(self.grid) < 1:
            raise ValueError(f"Scnn(grid={self.grid!r}): must be two integers >= 1")
        energy_table(self.energy)  # refuses an unknown name

    @property
    def multiplier_count(self) -> int:
        """Multipliers of all elements."""
        return math.prod(self.grid) * self.multipliers**2

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        if self.mapping == "planar":
            return self._planar_cost(product)
        planes = planes_of(product, self.matmul_tile)
        return self._pairs.cost(product, planes, self._pairs.full_work(planes))

    def plan(self, product: LayerProduct) -> PlanarPlan:
        """Layout of a product on the grid in the planar mapping."""
        seen = self.seen(product)
        return self._plan(seen, laid_out(seen))

    def _plan(self, product: LayerProduct, outer: OuterProduct) -> PlanarPlan:
        kind, convolution = planar(product.kind, product.geometry)
        # The entries of a batch of matrix products are no channels of one input.
        matmul = isinstance(product.geometry, MatmulGeometry)
        return PlanarPlan.of(
            outer,
            self.grid,
            self.accumulator_entries,
            exchanges_halos=kind is not Product.WEIGHT_GRAD,
            depthwise=kind is Product.FORWARD
            and convolution.is_depthwise
            and not matmul,
        )

    @property
    def _pairs(self) -> PlanePairs:
        return PlanePairs(
            elements=math.prod(self.grid),
            multipliers=self.multipliers,
            startup_cycles=self.startup_cycles,
            skip_empty_pairs=self.skip_empty_pairs,
            buffer_kib=self.buffer_kib,
            accumulator_kib=self.accumulator_kib,
            global_kib=self.global_kib,
            energy=self.energy,
        )

    def _planar_cost(self, product: LayerProduct) -> Cost:
        outer = laid_out(product)
        plan = self._plan(product, outer)
        serialised = self.conflicts == "serialised"
        groups = planar(product.kind, product.geometry)[1].groups
        channels = len(outer.images) // groups if self.barrier == "group" else 1
        count = planar_counts(
            outer, plan, self.grid, self.multipliers, serialised, channels
        )
        samples, filters = product.result_shape[:2]
        halo_cycles = plan.halo_area * samples * filters * plan.passes
        cycles = count["cycles"] + halo_cycles
        elements, slots = math.prod(self.grid), self.multipliers**2
        issued = count["products"]
        valid = count["valid"] if serialised else product.counts.valid
        values = count["image_reads"] + count["kernel_reads"]
        weights = plan.passes * int(outer.kernels.sum()) * outer.images.shape[1]
        table = energy_table(self.energy)
        n = numbers_of(product.arithmetic)
        image, kernel = plane_bits(product, outer)
        return Cost(
            cycles=cycles,
            multiplies=issued,
            valid_multiplies=valid,
            redundant_multiplies=issued - valid,
            multiplier_slots=cycles * elements * slots,
            operations={n.multiply: issued, n.add: valid, "coordinate": 2 * issued},
            accesses={
                "image_buffer.read": n.words(count["image_reads"], image),
                "image_buffer.write": n.words(product.result_size, n.result),
                "weight_fifo.read": n.words(count["kernel_reads"], kernel),
                # Run lengths of 4 bits, 8 to a word.
                "index_buffer.read": ceil_div(values, 8),
                "accumulator.read": n.words(valid, n.sums),
                "accumulator.write": n.words(valid, n.sums),
                "global_buffer.read": n.words(weights, kernel),
            },
            details={
                "halo_cycles": halo_cycles,
                "issue_steps": count["steps"],
                "image_vectors": count["image_vectors"],
                "passes": plan.passes,
                "redundant_slots": issued - valid,
                "fragmented_slots": slots * count["steps"] - issued,
                "conflict_slots": slots * count["conflict_cycles"],
                "idle_slots": slots * count["idle_cycles"],
                "halo_slots": slots * elements * halo_cycles,
                "nonzero_products": product.counts.nonzero,
                # Of different residue classes; passes form some products again.
                "skipped_products": product.counts.nonzero - issued,
            },
            prices_pj=table.prices(
                {
                    n.multiply: n.multiply,
                    n.add: n.add,
                    "coordinate": "add_int32",
                },
                {
                    "image_buffer": self.buffer_kib,
                    "index_buffer": self.buffer_kib,
                    "weight_fifo": _WEIGHT_FIFO_KIB,
                    "accumulator": self.accumulator_kib,
                    "global_buffer": self.global_kib,
                },
            ),
            area_mm2=table.area_mm2(self._pairs.arithmetic_units(n.multiply, n.add)),
            notes=_said_once(FOLDED) if is_folded(product) else (),
        )


@cache
def _said_once(note: str) -> tuple[str, ...]:
    """The note of a cost; it is logged when it is first made."""
    logger.warning(note)
    return (note,)
