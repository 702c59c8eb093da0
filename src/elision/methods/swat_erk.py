"""SWAT-ERK: SWAT with layer densities after Erdős, Rényi and the kernel."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from torch import nn

from elision.layers.recipe import Recipe, names_in_order, selects
from elision.methods.swat import Swat
from elision.topology import densities

__all__ = ["SwatErk"]


@dataclass(frozen=True)
class SwatErk(Swat):
    """SWAT whose weight and activation sparsity differ by layer: large layers more.

    As :class:`Swat` with the densities of :mod:`elision.topology.distribution` for the
    model at hand, over all layers, the first included. The activations of a layer have
    its weights' density, so they are less sparse on average than the weights.

    Attributes:
        sparsity: fraction left out of all weights within reach together.
        distribution: ``"erk"`` or ``"er"``.

    Example:
        >>> layers = {"a": nn.Linear(8, 8), "b": nn.Linear(80, 80)}
        >>> len(SwatErk(0.9).resolved(layers).overrides)
        2
    """

    distribution: str = "erk"
    _: KW_ONLY
    dense: tuple[str, ...] = (":depthwise", ":embedding")

    key = "swat-erk"

    def resolved(self, layers: Mapping[str, nn.Module]) -> Recipe:
        names = names_in_order(layers)
        left = [
            n
            for n, m in layers.items()
            if any(selects(pattern, n, m, names) for pattern in self.dense)
        ]
        shapes = {
            n: tuple(m.weight.shape)  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]
            for n, m in layers.items()
            if n in names or n not in left  # a table left dense is in no budget
        }
        found = densities(
            shapes,
            self.sparsity,
            self.distribution,
            fixed={n: 1.0 for n in left if n in shapes},
        )
        own = tuple((n, self._table(1 - found[n])) for n in layers if n not in left)
        return replace(self, overrides=(*self.overrides, *own))
