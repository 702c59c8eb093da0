"""The native engine: products with one sparse operand, by our own C++ kernels."""

import functools
import math
import threading
from dataclasses import dataclass
from typing import Any

import torch

from elision.engines.base import Engine, check_sparse
from elision.engines.native import library
from elision.engines.native.channels import is_finite, product_of_live_channels
from elision.engines.native.groups import group_by_group, wide_enough
from elision.engines.torch_engine import TorchEngine
from elision.products import Conv2dGeometry, Geometry, Product

__all__ = ["NativeEngine"]

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
    halves (:func:`library.multiplies_halves`), which products of a sparse weight and of a
    mask then use. Anything it has no way for (other dtypes, groups of few channels) and
    operands that hold an infinity or a NaN, which a zero would have spread, are computed
    densely by torch. A gradient most of whose channels are zero in the whole batch
    (unified meProp) becomes the smaller dense product of the others.

    Args:
        keep: whether a weight's lists are kept from the forward product for the input
            gradient, which the tensor's address and version tell to be the same.
    """

    name = "native"

    def __init__(self, *, keep: bool = True) -> None:
        self.keep = keep
        self._dense = TorchEngine()
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or one loaded from a file, starts with nothing kept."""
        return functools.partial(NativeEngine, keep=self.keep), ()

    def forget(self) -> None:
        """Compress the weight anew at the next call, even if it has not moved."""
        with self._lock:
            if self._kept is not None:
                self._kept.stamp = self._kept.weight = None

    def unavailable(self) -> str | None:
        """Why the kernels cannot be used here; the first call builds them."""
        return library.unavailable()

    def supports(self, kind: Product, geometry: Geometry, sparse: str | None) -> bool:
        """The pairs of product and sparse operand above, unless groups are narrow."""
        conv = geometry.reshaped_convolution
        return conv is not None and (kind, sparse) in _WAYS and wide_enough(conv)

    def choose(
        self,
        kind: Product,
        geometry: Geometry,
        first: torch.Tensor,
        second: torch.Tensor,
        *,
        sparse: str | None = None,
        wanted: torch.Tensor | None = None,
    ) -> Engine:
        """This engine, or torch's for a product that it has no way for."""
        check_sparse(kind, sparse, wanted)
        operands = dict(zip(kind.operands, (first, second), strict=True))
        floats = first.dtype == second.dtype and first.dtype in _FLOATS
        here = all(t.device.type == "cpu" for t in operands.values())
        # What does not fit together is torch's, which says so in a user's words.
        fit = all(t.shape == geometry.shape_of(name) for name, t in operands.items())
        if wanted is None:
            possible = self.supports(kind, geometry, sparse)
        else:
            conv = geometry.reshaped_convolution
            possible = (
                conv is not None
                and wide_enough(conv)
                and math.prod(conv.kernel) <= library.MOST_TAPS
            )
        able = floats and here and fit and possible and self.unavailable() is None
        return self if able else self._dense

    def product(
        self,
        kind: Product,
        geometry: Geometry,
        first: torch.Tensor,
        second: torch.Tensor,
        *,
        sparse: str | None = None,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one product; see :meth:`Engine.product`."""
        engine = self.choose(
            kind, geometry, first, second, sparse=sparse, wanted=wanted
        )
        conv = geometry.reshaped_convolution
        if engine is self and conv is not None:
            left, right = (
                value.detach().reshape(conv.shape_of(name))
                for name, value in zip(kind.operands, (first, second), strict=True)
            )
            if wanted is not None:
                wanted = wanted.reshape(conv.shape_of("weight"))
            if conv.groups == 1:
                result = self._product(kind, conv, left, right, sparse, wanted)
            else:
                result = _grouped(kind, conv, left, right, sparse, wanted)
            if result is not None:
                shape = geometry.shape_of(kind.absent)
                return result.reshape(shape).to(first.dtype)
        return self._dense.product(
            kind, geometry, first, second, sparse=sparse, wanted=wanted
        )

    def _product(
        self,
        kind: Product,
        conv: Conv2dGeometry,
        left: torch.Tensor,
        right: torch.Tensor,
        sparse: str | None,
        wanted: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """The product of a convolution; None if an operand is not finite."""
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
        """The weight as lists; those of the last call if it had the same weight.

        The tensor is held beside its lists, so that its address names it.
        """
        kept = self._kept
        stamp = (weight.data_ptr(), weight._version)
        asked = (conv, halves)
        if kept is None or (kept.weights.geometry, kept.weights.halves) != asked:
            kept = _Kept(library.Weights(conv, halves=halves))
        if kept.stamp != stamp:
            kept.weights.compress(weight.to(torch.float32))
            kept.stamp, kept.weight = stamp, weight
        self._kept = kept
        return kept.weights


def _in_halves(operand: torch.Tensor) -> bool:
    return operand.dtype == torch.float16 and library.multiplies_halves()


@dataclass
class _Kept:
    weights: library.Weights
    stamp: tuple[int, int] | None = None
    weight: torch.Tensor | None = None


def _grouped(
    kind: Product,
    conv: Conv2dGeometry,
    left: torch.Tensor,
    right: torch.Tensor,
    sparse: str | None,
    wanted: torch.Tensor | None,
) -> torch.Tensor | None:
    """The product of a grouped convolution; None if an operand is not finite."""
    alone = NativeEngine(keep=False)
    tensors = dict(zip(kind.operands, (left, right), strict=True))
    if wanted is not None:
        tensors["wanted"] = wanted

    def one(part: Conv2dGeometry, *own: torch.Tensor) -> torch.Tensor | None:
        left, right, *rest = own
        return alone._product(kind, part, left, right, sparse, *(rest or [None]))

    return group_by_group(kind, conv, tensors, one)


def _of_weights(
    weights: library.Weights, forward: bool, blocked: torch.Tensor
) -> torch.Tensor:
    product = weights.forward if forward else weights.input_grad
    return product(blocked, slot=1)


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
    g, g_finite = library.to_blocked(gradient, slot=0)
    x, x_finite = library.to_blocked(input, slot=1)
    if not (g_finite and x_finite):
        return None
    if wanted is None:
        return library.weight_grad(conv, x, g, sparse=sparse or "input")[0]
    weights = library.Weights(conv, halves=_in_halves(input))
    weights.follow(wanted, input_grad=False)
    return weights.masked_grad(x, g)
