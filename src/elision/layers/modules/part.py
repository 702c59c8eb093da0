"""The elided forms of a part, and of the layer that it is a part of."""

from typing import Any

from torch import Tensor, nn

from elision.layers.modules.base import ElidedLayer
from elision.layers.parts import Part

__all__ = ["ElidedPart", "ElidedWhole"]


class ElidedPart(ElidedLayer, Part):
    """One weight of a layer that has several, whose products a recipe changes.

    Example:
        >>> import elision
        >>> model = elision.elide(nn.GRU(3, 4), elision.methods.Swat(0.5, dense=()))
        >>> [(name, type(part).__name__) for name, part in model.named_children()]
        [('ih_l0', 'ElidedPart'), ('hh_l0', 'ElidedPart')]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        return self.run_products(input, self.weight, self.bias)

    def of_rows(self, input: Tensor, bias: Tensor | None, rows: slice) -> Tensor:
        """The product with some rows of the weight, ``input·W[rows]ᵀ + b``.

        Args:
            input: ``(..., inner)``.
            bias: of these rows, or None.
            rows: rows of the weight; a transform sees the whole of it.
        """
        flat = input.reshape(-1, input.shape[-1])
        y = self.run_products(flat, self.weight, bias, rows=rows)
        return y.unflatten(0, input.shape[:-1])


class ElidedWhole(nn.Module):
    """Base of the elided layers that have parts; a member is one of the plain type, too.

    Its parts are its children, so that what walks over a model's layers meets them.
    """

    @property
    def elided_parts(self) -> list[ElidedPart]:
        """The parts, in the order of the parameters."""
        children: Any = self._modules.values()
        return [part for part in children if isinstance(part, ElidedPart)]
