"""The part that methods of quantised training share: which operands are quantised where."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from elision.layers.recipe import Recipe, Table
from elision.methods.base import Method
from elision.operands import KEEP, LearnedStep, QuantisedWeight, Transform
from elision.operands.quantised_weight import FLOAT_BITS
from elision.products import Product
from elision.topology import Blended, install
from elision.topology.install import refuse_meta
from elision.topology.weights import sparse_weights

__all__ = ["FLOAT_BITS", "Quantised"]


@dataclass(frozen=True)
class Quantised(Method):
    """A method that quantises weights, and activations in front of all layers but the first.

    What the first layer reads is the data, which no activation function has made: its
    weights alone are quantised. A member names the transforms, :meth:`weights`,
    :meth:`activations` and :meth:`gradients`, of which the latter two are None for float
    values; and, if something happens around a step of the optimiser, ``rule()``.

    Example:
        >>> from elision.methods import Bcgd
        >>> layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
        >>> recipe = Bcgd().resolved(layers)
        >>> [str(recipe.table_for(n, m, list(layers))[Product.FORWARD, "input"])
        ...     for n, m in layers.items()]
        ['keep', '4 bits of a learned step, ceil']
    """

    def weights(self) -> QuantisedWeight:
        """The transform of the weights."""
        raise NotImplementedError

    def activations(self) -> LearnedStep | None:
        """The transform of a layer's input."""
        return None

    def gradients(self) -> Transform | None:
        """The transform of the output's gradient."""
        return None

    def build(self) -> Table:
        for name in ("weight_bits", "activation_bits", "gradient_bits"):
            bits = getattr(self, name, FLOAT_BITS)
            if bits != FLOAT_BITS and bits not in range(1, 9):
                raise ValueError(
                    f"{type(self).__name__}({name}={bits!r}): must be an integer in [1, 8], "
                    f"or {FLOAT_BITS} for float values"
                )
        self._rule()
        return self._table(self.weights(), self.activations())

    def _rule(self) -> Blended:
        return getattr(self, "rule", Blended)()

    def _table(self, weights: Transform, activations: Transform | None) -> Table:
        x, g = activations or KEEP, self.gradients() or KEEP
        return Table(
            {
                Product.FORWARD: {"input": x, "weight": weights},
                Product.INPUT_GRAD: {"grad_output": g, "weight": weights},
                Product.WEIGHT_GRAD: {"grad_output": g, "input": x},
            }
        )

    def resolved(self, layers: Mapping[str, nn.Module]) -> Recipe:
        del layers
        first = (":first", self._table(self.weights(), None))
        return replace(self, overrides=(*self.overrides, first))

    def prepare(self, model: nn.Module) -> None:
        rule, weights = self._rule(), sparse_weights(model, QuantisedWeight)
        if rule.acts_on(weights):
            install(model, rule, self.key, replace(self, overrides=()))
            return
        refuse_meta(weights, self.key)
        rule.start(weights, {})
        super().prepare(model)
