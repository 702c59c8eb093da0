"""Costs of a layer in a pipeline: its three products, what it keeps, what it sends.

A pipeline's layers stand in the order in which they run. What lies between two layers with
a weight, such as a batch norm or an activation function, is charged to the layer before.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from elision.accelerators.base import Accelerator
from elision.accelerators.step import check_layers
from elision.common.checks import number, one_of
from elision.products import Geometry, LayerProduct, Product

__all__ = ["UNITS", "LayerCost", "accelerator_costs", "as_costs"]

#: Units of a duration.
UNITS = ("s", "cycles")

#: Bytes of one value of an accelerator's operands and results: words of 32 bits, which
#: is what a :class:`~elision.accelerators.base.Cost` counts.
_WORD_BYTES = 4


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer for one micro-batch.

    Attributes:
        forward: duration of the forward product and of all that follows it up to the
            next layer.
        input_grad: duration of the input gradient, with the backward pass of all that
            follows the layer; 0 for a first layer whose input is data.
        weight_grad: duration of the weight gradient; 0 for a layer without parameters.
        name: for messages and figures.
        kept_bytes: activations kept from the forward product to the weight gradient.
        sent_bytes: output, which is sent to the next layer, and the size of the gradient
            that comes back.
        parameter_bytes: parameters.
        unit: of the durations, one of :data:`UNITS`.

    Raises:
        ValueError: a number is negative or not finite, or the unit is unknown.

    Example:
        >>> LayerCost(1.0, 1.0, 0.5, name="conv1").total
        2.5
    """

    forward: float
    input_grad: float
    weight_grad: float
    name: str = ""
    kept_bytes: float = 0.0
    sent_bytes: float = 0.0
    parameter_bytes: float = 0.0
    unit: str = "s"

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("name", "unit"):
                value = getattr(self, field.name)
                number(f"LayerCost {self.name!r}", field.name, value, ">= 0")
        one_of(f"LayerCost {self.name!r}", "unit", self.unit, UNITS)

    @property
    def backward(self) -> float:
        """Duration of both gradients."""
        return self.input_grad + self.weight_grad

    @property
    def total(self) -> float:
        """Duration of all three products."""
        return self.forward + self.backward

    def of(self, product: Product) -> float:
        """Duration of one product."""
        return getattr(self, product.value)


def as_costs(costs: Iterable[LayerCost]) -> tuple[LayerCost, ...]:
    """The costs of a chain of layers, checked.

    Raises:
        ValueError: there is none, one is of another kind, or two have different units.
    """
    found = tuple(costs)
    if not found:
        raise ValueError(
            "a pipeline needs the cost of at least one layer; none is given"
        )
    for place, cost in enumerate(found):
        if not isinstance(cost, LayerCost):
            raise ValueError(f"layer {place}: expected a LayerCost, got {cost!r}")
    units = sorted({cost.unit for cost in found})
    if len(units) > 1:
        raise ValueError(
            f"the layers' durations are in {' and '.join(units)}; give one"
        )
    return found


def accelerator_costs(
    layers: Sequence[tuple[str, Geometry]], accelerator: Accelerator
) -> tuple[LayerCost, ...]:
    """Costs, in cycles, of layers on an accelerator that needs no values.

    A machine that interleaves both gradients of a layer is charged half of the pair for
    each: they cannot be placed apart without losing what the interleaving saves.

    Args:
        layers: pairs of name and geometry, in the order in which they run.
        accelerator: any whose cost does not depend on values
            (:attr:`~elision.accelerators.base.Accelerator.value_blind`).

    Raises:
        ValueError: the accelerator skips zeros, so needs values; or there is no layer.

    Example:
        >>> from elision import MatmulGeometry
        >>> from elision.accelerators import Systolic
        >>> layers = [("fc1", MatmulGeometry(8, 16, 16)), ("fc2", MatmulGeometry(8, 16, 4))]
        >>> [cost.input_grad for cost in accelerator_costs(layers, Systolic(16, 16))]
        [0.0, 54.0]
    """
    if not accelerator.value_blind:
        raise ValueError(
            f"{type(accelerator).__name__} skips zeros, so its cycles depend on values; "
            "give the costs of recorded products by LayerCost"
        )
    costs = []
    for place, (name, geometry) in enumerate(check_layers(layers)):
        cycles = _cycles(accelerator, name, geometry, first=place == 0)
        sizes = {
            operand: _WORD_BYTES * math.prod(geometry.shape_of(operand))
            for operand in ("input", "weight", "grad_output")
        }
        costs.append(
            LayerCost(
                *cycles,
                name=name,
                kept_bytes=sizes["input"],
                sent_bytes=sizes["grad_output"],
                parameter_bytes=sizes["weight"],
                unit="cycles",
            )
        )
    return as_costs(costs)


def _cycles(
    accelerator: Accelerator, name: str, geometry: Geometry, first: bool
) -> tuple[float, float, float]:
    """Cycles of forward product, input gradient and weight gradient."""
    products = {
        kind: LayerProduct(kind, geometry, None, None, name) for kind in Product
    }
    forward = accelerator.cost(products[Product.FORWARD]).cycles
    weight_grad = products[Product.WEIGHT_GRAD]
    if first:
        return forward, 0.0, accelerator.cost(weight_grad).cycles
    input_grad = products[Product.INPUT_GRAD]
    if accelerator.interleaves:
        both = accelerator.cost_pair(input_grad, weight_grad)
        return forward, both.cycles / 2, both.cycles / 2
    return (
        forward,
        float(accelerator.cost(input_grad).cycles),
        float(accelerator.cost(weight_grad).cycles),
    )
