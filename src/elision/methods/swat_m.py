"""SWAT-M: SWAT whose layer densities follow the momentum."""

from dataclasses import dataclass

from torch import nn

from elision.layers.recipe import Table
from elision.methods.swat import Swat
from elision.operands import TopKShare, Transform
from elision.topology import MomentumBudget, install

__all__ = ["SwatM"]


@dataclass(frozen=True)
class SwatM(Swat):
    """SWAT that starts uniform and shares its weights by momentum after each step.

    The density of a layer's weights and activations is its share of all active
    weights, by the mean ``|momentum|`` of those active (see
    :class:`elision.topology.MomentumBudget`). Needs
    :func:`elision.topology.attach` and an optimiser with momentum.

    Deviations, beside those of :class:`Swat`:
        - Thresholds are exact and new in every step, as the densities are; ``refresh``,
          ``threshold`` and ``activation_sparsity`` must keep their defaults.

    Attributes:
        sparsity: fraction left out of all weights that are not left dense, together.

    Example:
        >>> from elision.products import Product
        >>> print(SwatM(0.8).table[Product.FORWARD, "weight"])
        top 0.2 by magnitude, then as the budget moves
    """

    key = "swat-m"

    def build(self) -> Table:
        if (self.refresh, self.threshold, self.activation_sparsity) != (
            1,
            "exact",
            None,
        ):
            raise ValueError(
                "SwatM chooses densities and thresholds anew in every step: leave "
                "refresh, threshold and activation_sparsity at their defaults"
            )
        return super().build()

    def _weights(self, sparsity: float) -> Transform:
        return TopKShare(sparsity)

    def _activations(self, sparsity: float) -> Transform:
        return TopKShare(sparsity)

    def prepare(self, model: nn.Module) -> None:
        install(model, self.rule(), self.key, self)

    def rule(self) -> MomentumBudget:
        """The rule that shares weights by momentum."""
        return MomentumBudget(self.sparsity)
