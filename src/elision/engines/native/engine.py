"""The native engine: products with one sparse operand, by C++ kernels of this library."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch

from elision.common.forking import Lock
from elision.engines.base import NO_HINT, Engine, Hint
from elision.engines.native import library
from elision.engines.native.channels import is_finite, product_of_live_channels
from elision.engines.native.groups import group_by_group, wide_enough
from elision.engines.torch_engine import TorchEngine
from elision.products import Conv2dGeometry, Geometry, LayerProduct, Product

__all__ = ["NativeEngine"]

#: Products and sparse operands that have a kernel.
_WAYS = {
    (Product.FORWARD, "weight"),
    (Product.INPUT_GRAD, "weight"),
    (Product.INPUT_GRAD, "grad_output"),
    (Product.WEIGHT_GRAD, "input"),
    (Product.WEIGHT_GRAD, "grad_output"),
}

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class NativeEngine(Engine):
    """Leaves out the zeros of a sparse weight, input or gradient.

    On the CPU, of float32, bfloat16 or float16. Products of bfloat16 are computed in
    float32, which loses nothing; so are those of float16, unless this CPU multiplies
    halves (:func:`library.multiplies_halves`): then products of a sparse weight and of
    a mask are computed in halves. What is convolved over a line has images of one row, and
    a transposed convolution's products are those of the convolution that it transposes.
    Torch computes densely what has no kernel here (other dtypes, groups of few channels,
    images of three axes) and operands with an infinity or a NaN, which zeros spread in a
    dense product. Operands and results below 1.2e-38, the smallest normal float32, count
    as zero in the kernels. A gradient most of whose channels are zero in the whole
    batch (unified meProp) becomes the smaller dense product of the other channels.

    Args:
        keep: whether the forward product's lists of a weight are reused by the input
            gradient, as long as the tensor's address and version are the same.

    Example:
        >>> from elision.engines import NativeEngine
        >>> from elision.products import LayerProduct, MatmulGeometry, Product
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(4, 8, 6))
        >>> engine = NativeEngine()
        >>> engine.supports(product, Hint("weight")), engine.supports(product)
        (True, False)
    """

    name = "native"

    def __init__(self, *, keep: bool = True) -> None:
        self.keep = keep
        self._dense = TorchEngine()
        self._lock = Lock(self._drop)
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles start without kept lists."""
        return functools.partial(NativeEngine, keep=self.keep), ()

    def forget(self) -> None:
        """Compress the weight anew at the next call, even if it has not changed."""
        with self._lock:
            if self._kept is not None:
                self._kept.stamp = self._kept.weight = None

    def _drop(self) -> None:
        """In a forked process: leave lists alone that another thread was making."""
        if self._kept is not None:
            self._kept.weights.abandon()
            self._kept = None

    def unavailable(self) -> str | None:
        """The reason why the kernels cannot be used here; the first call builds them."""
        return library.unavailable()

    def supports(self, product: LayerProduct, hint: Hint = NO_HINT) -> bool:
        """Whether zeros of the hinted operand can be left out and groups are wide.

        Kernels exist for a sparse weight in the forward product, for either operand of
        both gradients, and for a weight gradient wanted in part.
        """
        geometry = product.geometry
        conv = geometry.reshaped_convolution
        if conv is None or not wide_enough(conv):
            return False
        if hint.wanted is not None:
            return math.prod(conv.kernel) <= library.MOST_TAPS
        return (
            geometry.convolution_product(product.kind),
            _in_convolution(geometry, hint.sparse),
        ) in _WAYS

    def choose(self, product: LayerProduct, hint: Hint = NO_HINT) -> Engine:
        """This engine, or torch's for a product without a kernel here."""
        hint.check(product)
        first, second = product.first, product.second
        floats = first.dtype == second.dtype and first.dtype in _FLOATS
        here = first.device.type == second.device.type == "cpu"
        # Torch refuses operands that do not fit together, in a user's words.
        able = (
            floats
            and here
            and product.fits
            and self.supports(product, hint)
            and self.unavailable() is None
        )
        return self if able else self._dense

    def compute(self, product: LayerProduct, hint: Hint = NO_HINT) -> torch.Tensor:
        """Compute one product; see :meth:`Engine.compute`."""
        conv = product.geometry.reshaped_convolution
        if self.choose(product, hint) is self and conv is not None:
            geometry = product.geometry
            kind = geometry.convolution_product(product.kind)
            sparse = _in_convolution(geometry, hint.sparse)
            given = {
                geometry.convolution_operand(name): value.detach()
                for name, value in product.operands.items()
            }
            tensors = {
                name: given[name].reshape(conv.shape_of(name)) for name in kind.operands
            }
            if hint.wanted is not None:
                tensors["wanted"] = hint.wanted.reshape(conv.shape_of("weight"))
            if conv.groups == 1:
                result = self._product(kind, conv, sparse, *tensors.values())
            else:
                alone = NativeEngine(keep=False)  # each group has lists of its own

                def of_group(
                    part: Conv2dGeometry, *own: torch.Tensor
                ) -> torch.Tensor | None:
                    return alone._product(kind, part, sparse, *own)

                result = group_by_group(kind, conv, tensors, of_group)
            if result is not None:
                return result.reshape(product.result_shape).to(product.first.dtype)
        return self._dense.compute(product, hint)

    def _product(
        self,
        kind: Product,
        conv: Conv2dGeometry,
        sparse: str | None,
        left: torch.Tensor,
        right: torch.Tensor,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """The product of a plain convolution; None if an operand is not finite."""
        if sparse == "grad_output" and wanted is None:
            gathered = product_of_live_channels(kind, conv, left, right)
            if gathered is not None:
                return gathered
        if kind is Product.WEIGHT_GRAD:
            return _weight_grad(conv, left, right, sparse, wanted)
        if sparse == "grad_output":
            return _input_grad(conv, left, right)
        return self._with_weight(kind, conv, left, right)

    def _with_weight(
        self,
        kind: Product,
        conv: Conv2dGeometry,
        dense: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor | None:
        """Forward or input gradient; None if an operand is not finite."""
        blocked, finite = library.to_blocked(dense, slot=0)
        if not finite or not is_finite(weight):
            return None
        forward = kind is Product.FORWARD
        halves = _in_halves(weight)
        if self.keep:
            with self._lock:
                weights = self._compressed(conv, weight, halves)
                result = _of_weights(weights, forward, blocked)
        else:
            weights = library.Weights(conv, halves=halves)
            values = weight.to(torch.float32)
            weights.compress(values, forward=forward, input_grad=not forward)
            result = _of_weights(weights, forward, blocked)
            weights.release()
        return library.from_blocked(result, conv.batch)

    def _compressed(
        self, conv: Conv2dGeometry, weight: torch.Tensor, halves: bool
    ) -> library.Weights:
        """The weight's lists, kept from the last call if the weight is the same.

        A reference to the tensor is kept with its lists, so that its address stays
        unique.
        """
        kept = self._kept
        stamp = (weight.data_ptr(), weight._version)
        shape = (conv, halves)
        if kept is None or (kept.weights.geometry, kept.weights.halves) != shape:
            kept = _Kept(library.Weights(conv, halves=halves))
        if kept.stamp != stamp:
            kept.weights.compress(weight.to(torch.float32))
            kept.stamp, kept.weight = stamp, weight
        self._kept = kept
        return kept.weights


def _in_convolution(geometry: Geometry, sparse: str | None) -> str | None:
    """Name, in the convolution that a layer is, of its sparse operand."""
    return None if sparse is None else geometry.convolution_operand(sparse)


def _is_matrix_product(conv: Conv2dGeometry) -> bool:
    """Whether images are single pixels, and kernels too."""
    return conv.height == conv.width == math.prod(conv.kernel) == 1 and not any(
        conv.padding
    )


def _in_halves(operand: torch.Tensor) -> bool:
    return operand.dtype == torch.float16 and library.multiplies_halves()


@dataclass
class _Kept:
    weights: library.Weights
    stamp: tuple[int, int] | None = None
    weight: torch.Tensor | None = None


def _of_weights(
    weights: library.Weights, forward: bool, blocked: torch.Tensor
) -> torch.Tensor:
    compute = weights.forward if forward else weights.input_grad
    return compute(blocked, slot=1)


def _input_grad(
    conv: Conv2dGeometry, gradient: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor | None:
    """Input gradient from a sparse gradient; None if an operand is not finite."""
    g, finite = library.to_blocked(gradient, slot=0)
    if not finite or not is_finite(weight):
        return None
    dx = library.sparse_input_grad(conv, g, weight.to(torch.float32), slot=1)
    return library.from_blocked(dx, conv.batch)


def _weight_grad(
    conv: Conv2dGeometry,
    gradient: torch.Tensor,
    input: torch.Tensor,
    sparse: str | None,
    wanted: torch.Tensor | None,
) -> torch.Tensor | None:
    """Weight gradient; None if an operand is not finite."""
    if wanted is None and _is_matrix_product(conv):
        x, g = (operand.flatten(1) for operand in (input, gradient))
        return library.rows_weight_grad(x, g, sparse=sparse or "input")
    g, g_finite = library.to_blocked(gradient, slot=0)
    x, x_finite = library.to_blocked(input, slot=1)
    if not (g_finite and x_finite):
        return None
    if wanted is None:
        return library.weight_grad(conv, x, g, sparse=sparse or "input")[0]
    weights = library.Weights(conv, halves=_in_halves(input))
    weights.follow(wanted, input_grad=False)
    return weights.masked_grad(x, g)
