"""ANT: anticipates redundant Cartesian products and skips most of them."""

from dataclasses import dataclass, replace

from elision.accelerators.base import (
    Accelerator,
    Cost,
    ceil_div,
    check_integer,
    check_positive,
)
from elision.accelerators.energy import energy_table
from elision.accelerators.outer.anticipation import TOTALS, rectangles, scan
from elision.accelerators.outer.plane_pair import PairWork, PlanePairs
from elision.accelerators.outer.planes import OuterProduct, Planes, planes_of
from elision.common.names import lookup
from elision.products import LayerProduct

__all__ = ["Ant"]

_METHODS = {"closed": rectangles, "scan": scan}


@dataclass(frozen=True, kw_only=True)
class Ant(Accelerator):
    """ANT (Lew et al., ISCA 2022) on the plane-pair mapping of :class:`Scnn`.

    Before a group of image values meets a kernel plane, the range of kernel rows and
    columns that can give a valid output is computed from the group's smallest and
    largest coordinates. Rows outside it are not read; within it a window of column
    indices is compared per cycle and the first ones in range are issued (see
    :mod:`elision.accelerators.outer.anticipation`). In a matrix product the range of rows
    collapses to the summation indices of the group; a group of one index has no RCP.

    The mechanism is the paper's as its abstract and public notes describe it. The
    paper's configuration is not public: every number below is this project's own
    default.

    Attributes:
        multipliers: side of each element's multiplier array, ``n``.
        window: column indices compared per cycle, ``k``.
        startup_cycles: cycles before the first product of a pair of planes.
        skip_empty_pairs: True if a pair with an all-zero plane costs no start-up.
        matmul_tile: how the values of a matrix product meet, as in :class:`Scnn`. None: a
            group holds values of one summation index. A number: it holds values in the
            order of their index, of one or several.
        group: image values that share one range; None means ``multipliers``. Not of a
            matrix product whose values meet by index.
        elements: processing elements.
        method: ``"closed"`` counts rectangles on integral images, and is a lower bound
            of the cycles; ``"scan"`` walks every window. The products are the same.
        index_bits: width of a coordinate, for the area (8: planes up to 256 wide).
        buffer_kib, accumulator_kib, global_kib: memories, as in :class:`Scnn`.
        energy: name of an energy table, or path of a TOML file.

    Example:
        >>> import numpy as np
        >>> from elision.products import MatmulGeometry, Product
        >>> x, w = np.ones((1, 4), np.float32), np.array([[1, 0, 0, 2]], np.float32)
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 4, 1), x, w)
        >>> cost = Ant(startup_cycles=5).cost(product)
        >>> cost.multiplies, cost.redundant_multiplies
        (2, 0)
    """

    multipliers: int = 4
    window: int = 16
    startup_cycles: int = 0
    skip_empty_pairs: bool = False
    matmul_tile: int | None = None
    group: int | None = None
    elements: int = 64
    method: str = "closed"
    index_bits: int = 8
    buffer_kib: float = 10.0
    accumulator_kib: float = 0.1875
    global_kib: float = 1024.0
    energy: str = "horowitz-45nm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "multipliers", "window", "elements", "index_bits")
        check_integer(self, 0, "startup_cycles")
        for name in ("group", "matmul_tile"):
            if getattr(self, name) is not None:
                check_integer(self, 1, name)
        check_positive(self, "buffer_kib", "accumulator_kib", "global_kib")
        lookup("method of Ant", self.method, _METHODS)
        energy_table(self.energy)  # refuses an unknown name

    @property
    def _pairs(self) -> PlanePairs:
        unit = self.range_unit_area_mm2
        return PlanePairs(
            elements=self.elements,
            multipliers=self.multipliers,
            startup_cycles=self.startup_cycles,
            skip_empty_pairs=self.skip_empty_pairs,
            buffer_kib=self.buffer_kib,
            accumulator_kib=self.accumulator_kib,
            global_kib=self.global_kib,
            energy=self.energy,
            extra_area_mm2=None if unit is None else self.elements * unit,
        )

    @property
    def range_unit_area_mm2(self) -> float | None:
        """Area of one element's range unit, from counts of comparators and adders.

        Two comparators per index of the window, two per further value of the group for
        its smallest and largest column (rows come in order), one subtractor per axis.
        Areas of 32-bit units, scaled to ``index_bits``. The abstract's 0.0017 mm2 names
        neither a node nor whether it is per element. None if the table has no areas.
        """
        comparators = 2 * self.window + 2 * ((self.group or self.multipliers) - 1)
        area = energy_table(self.energy).area_mm2(
            {"compare": comparators, "add_int32": 2}
        )
        return None if area is None else area * self.index_bits / 32

    @property
    def multiplier_count(self) -> int:
        """Multipliers of all elements."""
        return self.elements * self.multipliers**2

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        planes = planes_of(product, self.matmul_tile)
        return self._pairs.cost(product, planes, self._work(planes))

    def _work(self, planes: Planes) -> PairWork:
        full = self._pairs.full_work(planes)
        group = self.group or self.multipliers
        if not isinstance(planes, OuterProduct):
            return self._matched_work(planes, full)
        counts = _METHODS[self.method](
            planes.images,
            planes.kernels,
            planes.rows.as_tuple,
            planes.columns.as_tuple,
            group,
            self.multipliers,
            self.window,
        )
        total = dict(zip(TOTALS, counts.tolist(), strict=True))
        groups = ceil_div(planes.image_nonzeros, group).sum(1)
        ranges = groups @ (planes.kernel_nonzeros > 0).sum(1)
        return PairWork(
            issued=total["issued"],
            cycles=total["cycles"],
            longest=total["longest"],
            image_reads=total["image_reads"],
            kernel_reads=total["fetched"],
            index_reads=full.image_reads + total["scanned"],
            # Column extremes of the group, then both ends for every index in a window.
            compares=2 * full.image_reads + 2 * total["scanned"],
            bounds=2 * int(ranges),
        )

    def _matched_work(self, planes: Planes, full: PairWork) -> PairWork:
        """Matrix product: every index in the window matches."""
        steps = min(self.multipliers, self.window)
        vectors = ceil_div(planes.image_nonzeros, self.multipliers)
        cycles = vectors.sum(1) * ceil_div(planes.kernel_nonzeros, steps).sum(1)
        return replace(
            full,
            cycles=int(cycles.sum()),
            longest=int(cycles.max(initial=0)),
            compares=full.kernel_reads,
        )
