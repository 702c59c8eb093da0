"""SCNN: an outer-product accelerator for operands that are both sparse."""

from dataclasses import dataclass

from elision.accelerators.base import Accelerator, Cost
from elision.accelerators.outer import planes_of
from elision.accelerators.plane_pair import PlanePairs
from elision.products import LayerProduct

__all__ = ["Scnn"]


@dataclass(frozen=True, kw_only=True)
class Scnn(Accelerator):
    """SCNN (Parashar et al., ISCA 2017), with a mapping for training.

    Each element multiplies a vector of non-zero image values with a vector of non-zero
    kernel values, all with all, and scatters the products to banked accumulators.
    Products that belong to no output (RCPs) are computed like the others.

    ``mapping="plane-pair"`` (default; this project's own, see
    :mod:`elision.accelerators.plane_pair`) gives each element whole planes. It suits
    all three products of training and is the baseline for ANT.

    Attributes:
        mapping: ``"plane-pair"``.
        elements: processing elements (64: SCNN).
        multipliers: side of each element's multiplier array (4: SCNN's F = I = 4).
        startup_cycles: cycles before the first product of a pair of planes.
        skip_empty_pairs: whether a pair in which a plane is all zero costs no start-up.
        buffer_kib: buffer of one operand in each element (10: SCNN's IARAM).
        accumulator_kib: one accumulator bank (32 entries of 3 bytes, twice: SCNN).
        global_kib: buffer that all elements share (1 MB: SCNN's data capacity).
        energy: name of an energy table, or path of a TOML file.
    """

    mapping: str = "plane-pair"
    elements: int = 64
    multipliers: int = 4
    startup_cycles: int = 0
    skip_empty_pairs: bool = False
    buffer_kib: float = 10.0
    accumulator_kib: float = 0.1875
    global_kib: float = 1024.0
    energy: str = "horowitz-45nm"

    def __post_init__(self) -> None:
        if self.mapping != "plane-pair":
            raise ValueError(
                f"Scnn(mapping={self.mapping!r}): must be one of 'plane-pair'"
            )
        _ = self._pairs

    @property
    def _pairs(self) -> PlanePairs:
        return PlanePairs(
            elements=self.elements,
            multipliers=self.multipliers,
            startup_cycles=self.startup_cycles,
            skip_empty_pairs=self.skip_empty_pairs,
            buffer_kib=self.buffer_kib,
            accumulator_kib=self.accumulator_kib,
            global_kib=self.global_kib,
            energy=self.energy,
        )

    def cost(self, product: LayerProduct) -> Cost:
        """Cost of one product."""
        planes = planes_of(product)
        return self._pairs.cost(product, planes, self._pairs.full_work(planes))
