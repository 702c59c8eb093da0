"""SWAT-ERK: SWAT with layer densities after Erdős, Rényi and the kernel."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from torch import nn

from elision.layers.recipe import Recipe, selects
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
    dense: tuple[str, ...] = (":depthwise",)

    key = "swat-erk"

    def resolved(self, layers: Mapping[str, nn.Module]) -> Recipe:
        names = list(layers)
        shapes = {n: tuple(m.weight.shape) for n, m in layers.items()}  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]
        left = [
            n
            for n, m in layers.items()
            if any(selects(pattern, n, m, names) for pattern in self.dense)
        ]
        found = densities(
            shapes, self.sparsity, self.distribution, fixed=dict.fromkeys(left, 1.0)
        )
        own = tuple((n, self._table(1 - found[n])) for n in names if n not in left)
        return replace(self, overrides=(*self.overrides, *own))
