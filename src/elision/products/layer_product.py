"""One product of one layer at one step, with its operands."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from elision.products.arithmetic import FP32, Arithmetic
from elision.products.canonical import canonical_geometry, canonical_operand
from elision.products.counts import ProductCounts, convolution_counts
from elision.products.geometry import Geometry
from elision.products.kinds import Product
from elision.products.masks import nonzero_mask, strided

__all__ = ["LayerProduct"]


@dataclass(frozen=True, eq=False)
class LayerProduct:
    """One product of one layer at one step, with the operands as it read them.

    Attributes:
        kind: which of the three products.
        geometry: shape of the layer.
        first, second: the operands named by ``kind.operands``, torch tensors or numpy
            arrays in torch layouts (``X: N,C,H,W``; ``W: K,C/groups,R,S``;
            ``G: N,K,P,Q``; for a matrix product ``X: rows,inner``;
            ``W: columns,inner``; ``G: rows,columns``, each with a first axis ``batch``
            if that is above 1). Both None for a value-blind model, which needs the
            shape alone.
        name: name of the layer in its model.
        step: training step.
        arithmetic: number formats of the operands, the sums and the result; a count of
            products does not depend on them, the price of one does.

    Raises:
        ValueError: an operand does not have the shape that the geometry gives it, or
            only one of the two is None.

    Example:
        >>> x, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 3.0], [0.0, 4.0]])
        >>> from elision.products import MatmulGeometry
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 2, 2), x, w)
        >>> product.compute()
        tensor([[2., 0.]])
        >>> product.dense_macs, product.counts.valid
        (4, 1)
    """

    kind: Product
    geometry: Geometry
    first: Any = None
    second: Any = None
    name: str = ""
    step: int = 0
    arithmetic: Arithmetic = FP32

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Product):
            raise ValueError(f"kind must be a Product, got {self.kind!r}")
        if (self.first is None) != (self.second is None):
            raise ValueError(f"{self._where}: give both operands or neither")
        if self.first is None:
            return
        for operand, value in zip(
            self.kind.operands, (self.first, self.second), strict=True
        ):
            expected = self.geometry.shape_of(operand)
            if tuple(value.shape) != expected:
                raise ValueError(
                    f"{self._where}: {operand} has shape {tuple(value.shape)}, "
                    f"the geometry {self.geometry} needs {expected}"
                )

    @classmethod
    def unchecked(
        cls, kind: Product, geometry: Geometry, first: Any, second: Any
    ) -> "LayerProduct":
        """A product whose operands' shapes are not checked, for the training loop.

        Engines give operands that do not fit together to torch, whose error names the
        layer's call; see :meth:`elision.engines.Engine.compute`.
        """
        product = object.__new__(cls)
        product.__dict__.update(
            kind=kind, geometry=geometry, first=first, second=second
        )
        return product

    def __repr__(self) -> str:
        """Name, product and shape, never the operands' values."""
        blind = ", operands=None" if self.first is None else ""
        label = f"{self.name!r}, " if self.name else ""
        kind = self.kind.name
        return f"LayerProduct({label}{kind}, {self.geometry}, step={self.step}{blind})"

    @property
    def _where(self) -> str:
        return f"{self.kind.value} of layer {self.name or '(unnamed)'}"

    @property
    def operands(self) -> dict[str, Any]:
        """The two operands by name."""
        return dict(zip(self.kind.operands, (self.first, self.second), strict=True))

    @property
    def fits(self) -> bool:
        """Whether both operands have the shapes that the geometry gives them."""
        return all(
            value.shape == self.geometry.shape_of(name)
            for name, value in self.operands.items()
        )

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the product when nothing is left out."""
        return self.geometry.dense_macs

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the product's result: that of the tensor it does not read."""
        return self.geometry.shape_of(self.kind.absent)

    @property
    def result_size(self) -> int:
        """Number of values of the result."""
        return int(np.prod(self.result_shape))

    def compute(self) -> torch.Tensor:
        """The product itself, computed densely: the oracle for every engine.

        Returns:
            ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype, the wider
            one of two; equal to what autograd computes for the layer. Of integers and
            booleans, whose own width would wrap, the exact sums as int64; of 8-bit
            floats and quantised values fp32.

        Raises:
            ValueError: no operands, or integers whose sums may pass 2**53.
        """
        first, second = (strided(torch.as_tensor(v)) for v in self._present())
        if first.dtype != second.dtype:
            wider = torch.promote_types(first.dtype, second.dtype)
            first, second = first.to(wider), second.to(wider)
        if _is_exact(first):
            return self._exact(first, second)
        return self.geometry.compute(self.kind, first, second)

    def _exact(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The product of integers, in fp64, which holds every sum exactly."""
        first, second = first.double(), second.double()
        terms = min(first.numel(), second.numel())  # no output sums more
        if float(first.abs().max()) * float(second.abs().max()) * terms > 2**53:
            raise ValueError(f"{self._where}: sums of these integers may pass 2**53")
        return self.geometry.compute(self.kind, first, second).long()

    def as_convolution(self) -> "LayerProduct":
        """The same product of a convolution (:meth:`Geometry.as_convolution`).

        A matrix product is one of 1x1 taps on images of one pixel; a transposed
        convolution's is another product of the convolution it transposes. Operands are
        laid out anew, counts are the same.
        """
        kind, convolution = self.geometry.as_convolution(self.kind)
        if convolution is self.geometry:
            return self
        operands = {
            self.geometry.convolution_operand(name): None
            if value is None
            else self.geometry.to_convolution(name, value)
            for name, value in self.operands.items()
        }
        first, second = (operands[name] for name in kind.operands)
        stays = self.geometry.convolution_operand(self.kind.operands[0])
        return LayerProduct(
            kind,
            convolution,
            first,
            second,
            self.name,
            self.step,
            self.arithmetic if stays == kind.operands[0] else self.arithmetic.swapped,
        )

    @property
    def densities(self) -> dict[str, float]:
        """Fraction of non-zeros of each operand, by operand name."""
        return {
            name: float(mask.mean())
            for name, mask in zip(self.kind.operands, self.masks, strict=True)
        }

    @cached_property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Boolean numpy arrays that mark the non-zeros of the two operands.

        Raises:
            ValueError: an operand holds a NaN or an infinity, or there is no operand.
        """
        first, second = (
            nonzero_mask(f"{self._where}: {name}", value)
            for name, value in self._named_present()
        )
        return first, second

    @cached_property
    def counts(self) -> ProductCounts:
        """Numbers of non-zero products and, among these, of valid ones.

        Exact, without enumerating pairs: the pairs of a plane factorise, and the valid
        ones are a convolution of per-position counts (see :mod:`elision.products.counts`).
        Equal products have equal counts: they are those of the :attr:`canonical` form,
        where a matrix product in any notation meets by its summation index.

        Raises:
            ValueError: an operand holds a NaN or an infinity, or there is no operand.
        """
        own = self.canonical
        if own is not self:
            return own.counts  # which machines ask for, too
        kind, convolution = own.geometry.as_convolution(own.kind)
        masks = {
            own.geometry.convolution_operand(name): own.geometry.to_convolution(
                name, mask
            )
            for name, mask in own.operands.items()
        }
        return convolution_counts(kind, convolution, masks)

    @cached_property
    def canonical(self) -> "LayerProduct":
        """The same product in the form that all equal products share, as masks.

        Its geometry is :func:`~elision.products.canonical.canonical_geometry`, its
        operands are the :attr:`masks`: all that a count of products depends on.

        Raises:
            ValueError: an operand holds a NaN or an infinity, or there is no operand.
        """
        first, second = (
            canonical_operand(self.geometry, name, mask)
            for name, mask in zip(self.kind.operands, self.masks, strict=True)
        )
        own = replace(self.canonical_shape, first=first, second=second)
        own.__dict__.update(canonical=own, canonical_shape=self.canonical_shape)
        own.__dict__["masks"] = (first, second)
        return own

    @cached_property
    def canonical_shape(self) -> "LayerProduct":
        """The :attr:`canonical` form without operands, whose values are not read."""
        geometry = canonical_geometry(self.geometry)
        return LayerProduct(
            self.kind,
            geometry,
            name=self.name,
            step=self.step,
            arithmetic=self.arithmetic,
        )

    def _named_present(self) -> list[tuple[str, Any]]:
        return list(zip(self.kind.operands, self._present(), strict=True))

    def _present(self) -> tuple[Any, Any]:
        if self.first is None:
            raise ValueError(f"{self._where}: this needs the operands, which are None")
        return self.first, self.second


def _is_exact(value: torch.Tensor) -> bool:
    """Whether the dtype is an integer or boolean one."""
    return not (value.dtype.is_floating_point or value.dtype.is_complex)
