"""One systolic array that changes its dataflow from product to product, such as WS+OS."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from elision.accelerators.base import Cost
from elision.accelerators.systolic.array import SystolicArray
from elision.accelerators.systolic.sram import Buffers
from elision.accelerators.systolic.systolic import Systolic
from elision.accelerators.timing import Timing
from elision.products import Geometry, LayerProduct, Product

__all__ = ["SystolicMixed"]


@dataclass(frozen=True)
class SystolicMixed(SystolicArray):
    """A systolic array with a dataflow for each of the three products.

    The default, weight-stationary but for an output-stationary weight gradient, is what
    interleaving does apart, so it is the baseline of
    :class:`~elision.accelerators.systolic.intergrad.InterGrad` at equal PE count.

    Attributes:
        rows, columns: PEs.
        forward, input_grad, weight_grad: the dataflow of each product. The weight
            gradient is lowered as dW = Gᵀ·X, so that the array holds the same tile of dW
            as of W.
        drain, zero_gating, buffers, energy: see
            :class:`~elision.accelerators.systolic.Systolic`.

    Raises:
        ValueError: as :class:`~elision.accelerators.systolic.Systolic` does.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> product = LayerProduct(Product.WEIGHT_GRAD, MatmulGeometry(4, 8, 8))
        >>> SystolicMixed(8, 8).configured_for(product).dataflow
        'os'
    """

    rows: int = 32
    columns: int = 32
    _: KW_ONLY
    forward: str = "ws"
    input_grad: str = "ws"
    weight_grad: str = "os"
    drain: str = "overlapped"
    zero_gating: bool = False
    buffers: Buffers | str | float | None = None
    energy: str = "horowitz-45nm"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._arrays  # refuses bad parameters

    @cached_property
    def _arrays(self) -> dict[Product, Systolic]:
        flows = (self.forward, self.input_grad, self.weight_grad)
        return {
            kind: Systolic(
                self.rows,
                self.columns,
                dataflow,
                drain=self.drain,
                weight_grad="GtX",
                zero_gating=self.zero_gating,
                buffers=self.buffers,
                energy=self.energy,
            )
            for kind, dataflow in zip(Product, flows, strict=True)
        }

    def configured_for(self, product: LayerProduct) -> Systolic:
        """The array as it runs this product."""
        return self._arrays[product.kind]

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product in the dataflow for its kind."""
        return self.configured_for(product).run(product)

    def timing(self, job: tuple[LayerProduct, ...]) -> Timing:
        """Folds of one product in the dataflow for its kind."""
        return self.configured_for(job[0]).timing(job)

    def cost_update(self, geometry: Geometry) -> Cost:
        """Cost of a separate optimiser pass; see :meth:`Systolic.cost_update`."""
        return self._arrays[Product.FORWARD].cost_update(geometry)
