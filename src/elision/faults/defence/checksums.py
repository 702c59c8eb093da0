"""Checksums of a layer's three products: what sums of a result must be.

A product is linear in each operand, so sums of its result follow from sums of its
operands, at a small part of its cost (algorithm-based fault tolerance). With ``X`` summed
over the examples, and the windows of that sum for each tap of a kernel:

    forward           Σ_npq Y[n, k, p, q]  =  Σ_crs W[k, c, r, s]·X̄[c, r, s] + NPQ·b[k]
    input gradient    Σ_nhw dX[n, c, h, w] =  Σ_krs W[k, c, r, s]·Ḡ[k, r, s]
    weight gradient   Σ_kc dW[k, c, r, s]  =  Σ_npq Ĝ[n, p, q]·X̂[n, tp + δr − π, ...]

where ``X̄``, ``Ḡ`` are sums over the pixels that meet a tap, and ``Ĝ``, ``X̂`` sums over
channels, group by group. A matrix product is the case of one pixel and one tap.

Source: Huang and Abraham, Algorithm-based fault tolerance for matrix operations, IEEE
Trans. Comput. 33 (1984); the form for convolutions is derived here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.products import ConvolutionParameters, Product

__all__ = ["Checked", "check", "is_linear_in_sums"]

#: Standard deviations of a sum of independent roundings. With λ = 4 a bound of one sum
#: fails with a probability below 2·exp(−λ²/2) = 0.0007 (Higham and Mary, A new approach to
#: probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019, theorem 2.4);
#: that all roundings of a layer add up besides, as is assumed here, is rarer by far.
_SPREADS = 4.0


@dataclass(frozen=True)
class Checked:
    """Sums of one result and what they must be.

    Attributes:
        found: sums of the result, float64 or int64, one a checksum.
        expected: from the operands.
        tolerance: of each, from the rounding of the formats; 0 for integers.

    Example:
        >>> y = torch.tensor([[3.0]])
        >>> done = check(Product.FORWARD, torch.tensor([[1.0, 2.0]]), torch.ones(1, 2), y)
        >>> done.ok, done.expected.tolist()
        (True, [3.0])
    """

    found: Tensor
    expected: Tensor
    tolerance: Tensor

    @property
    def wrong(self) -> Tensor:
        """Which checksums are off by more than the tolerance, or are not numbers."""
        off = (self.found - self.expected).abs() <= self.tolerance
        return ~off

    @property
    def ok(self) -> bool:
        """Whether none is."""
        return not bool(self.wrong.any())


def is_linear_in_sums(convolution: ConvolutionParameters | None) -> bool:
    """Whether :func:`check` knows the checksums of such a product.

    Example:
        >>> is_linear_in_sums(None)
        True
    """
    if convolution is None:
        return True
    return not convolution.transposed and bool(convolution.stride)


def check(
    kind: Product,
    first: Tensor,
    second: Tensor,
    result: Tensor,
    bias: Tensor | None = None,
    convolution: ConvolutionParameters | None = None,
) -> Checked:
    """Compare the sums of one product's result with those of its operands.

    Args:
        kind: which product.
        first, second: operands in torch layouts, named by ``kind.operands``: input and
            weight; output gradient and weight; output gradient and input.
        result: ``Y``, ``dX`` or ``dW``.
        bias: that the forward product added, ``(K,)``.
        convolution: parameters of one to three axes; None for a matrix product.

    Raises:
        ValueError: a transposed convolution, whose checksums are not known here.
    """
    if not is_linear_in_sums(convolution):
        raise ValueError("check: a transposed convolution has no checksums here")
    how = convolution or ConvolutionParameters((), (), ())
    if kind is Product.FORWARD:
        return _forward(first, second, result, bias, how)
    if kind is Product.INPUT_GRAD:
        return _input_grad(first, second, result, how)
    return _weight_grad(first, second, result, how)


def _forward(
    x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None, how: ConvolutionParameters
) -> Checked:
    taps = list(_taps(w.shape[2:]))
    spread = F.pad(_sum(x, [0]), _padding(how))
    sums = torch.stack(
        [_sum(_window(spread, t, y.shape[2:], how), _axes(spread, 1)) for t in taps], 1
    )
    by_tap = _by_tap(w)
    expected = _grouped(by_tap, sums, how.groups)
    counts = y.shape[0] * math.prod(y.shape[2:])
    if bias is not None:
        expected = expected + _wide(bias) * counts
    size = _grouped(
        by_tap.abs().sum(2, keepdim=True), _sizes(x)[:, None], how.groups
    ) + (0 if bias is None else _wide(bias).abs() * counts)
    found = _sum(y, [0, *range(2, y.dim())])
    return Checked(found, expected, _tolerance(size, by_tap[0].numel(), counts, y, x))


def _input_grad(
    g: Tensor, w: Tensor, dx: Tensor, how: ConvolutionParameters
) -> Checked:
    total = _sum(g, [0])
    sums = torch.stack(
        [
            _sum(total[(slice(None), *_inside(t, g, dx, how))], _axes(total, 1))
            for t in _taps(w.shape[2:])
        ],
        1,
    )
    by_tap = _transposed(_by_tap(w), how.groups)
    expected = _grouped(by_tap, sums, how.groups)
    size = _grouped(by_tap.abs().sum(2, keepdim=True), _sizes(g)[:, None], how.groups)
    counts = dx.shape[0] * math.prod(dx.shape[2:])
    found = _sum(dx, [0, *range(2, dx.dim())])
    return Checked(found, expected, _tolerance(size, by_tap[0].numel(), counts, dx, g))


def _weight_grad(
    g: Tensor, x: Tensor, dw: Tensor, how: ConvolutionParameters
) -> Checked:
    of_g = _sum(g.unflatten(1, (how.groups, -1)), [2])
    of_x = F.pad(_sum(x.unflatten(1, (how.groups, -1)), [2]), _padding(how))
    every = [0, *range(2, of_g.dim())]
    expected = torch.stack(
        [
            _sum(of_g * _window(of_x, t, g.shape[2:], how), every)
            for t in _taps(dw.shape[2:])
        ],
        1,
    )
    found = _by_tap(dw).unflatten(0, (how.groups, -1)).sum((1, 2))
    of_group = [0, *range(2, g.dim() + 1)]
    # Σ(Σ_k|G|)(Σ_c|X|) ≤ √(K·C)·‖G‖·‖X‖
    norms = [
        t.unflatten(1, (how.groups, -1)).float().square().sum(of_group).double()
        for t in (g, x)
    ]
    channels = g.shape[1] * x.shape[1] / how.groups**2
    size = (norms[0] * norms[1] * channels).sqrt()[:, None].expand_as(expected)
    terms = g.shape[0] * math.prod(g.shape[2:])
    return Checked(found, expected, _tolerance(size, terms, int(channels), dw, g))


def _tolerance(
    size: Tensor, terms: int, added: int, result: Tensor, operand: Tensor
) -> Tensor:
    """The rounding that a checksum may show.

    Args:
        size: sum of the magnitudes of all terms of all values that are added.
        terms: of one value.
        added: values that are added.
        result, operand: their dtypes round.
    """
    if not result.is_floating_point():
        return torch.zeros_like(size)
    # Sums are in float32 at least, whatever the operands.
    unit = torch.finfo(torch.promote_types(operand.dtype, torch.float32)).eps / 2
    stored = torch.finfo(result.dtype).eps / 2
    each = _SPREADS * unit * (math.sqrt(terms) + math.log2(max(added, 2)))
    return (each + stored) * size.double()


def _sum(x: Tensor, axes: list[int]) -> Tensor:
    """Sum in the tensor's own arithmetic, at least float32; then float64 or int64."""
    if not axes:
        return _wide(x)
    if not x.is_floating_point():
        return x.sum(axes, dtype=torch.int64)
    own = torch.promote_types(x.dtype, torch.float32)
    return x.sum(axes, dtype=own).double()


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x.long()


def _sizes(x: Tensor) -> Tensor:
    """Sum of the magnitudes of each channel."""
    axes = [0, *range(2, x.dim())]
    if not x.is_floating_point():
        return x.abs().sum(axes, dtype=torch.int64)
    return torch.linalg.vector_norm(
        x, 1, axes, dtype=torch.promote_types(x.dtype, torch.float32)
    ).double()


def _by_tap(w: Tensor) -> Tensor:
    """``(K, C/groups, taps)`` of a weight."""
    return _wide(w).flatten(2) if w.dim() > 2 else _wide(w)[:, :, None]


def _transposed(by_tap: Tensor, groups: int) -> Tensor:
    """``(C, K/groups, taps)`` of ``(K, C/groups, taps)``."""
    return by_tap.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _grouped(by_tap: Tensor, sums: Tensor, groups: int) -> Tensor:
    """``Σ_ct W[k, c, t]·S[c, t]``, the channels of each group with its own."""
    own = sums.unflatten(0, (groups, -1))[:, None]
    return (by_tap.unflatten(0, (groups, -1)) * own).sum((2, 3)).flatten()


def _taps(kernel: torch.Size) -> Iterator[tuple[int, ...]]:
    return pairs(*(range(n) for n in kernel))


def _axes(x: Tensor, first: int) -> list[int]:
    return list(range(first, x.dim()))


def _padding(how: ConvolutionParameters) -> list[int]:
    return [p for n in reversed(how.padding) for p in (n, n)]


def _window(
    x: Tensor, tap: tuple[int, ...], sizes: torch.Size, how: ConvolutionParameters
) -> Tensor:
    """The padded pixels that a tap meets, one an output; axes of pixels are the last."""
    cut = tuple(
        slice(d * r, d * r + t * (n - 1) + 1, t)
        for r, n, t, d in zip(tap, sizes, how.stride, how.dilation, strict=True)
    )
    return x[(..., *cut)]


def _inside(
    tap: tuple[int, ...], g: Tensor, dx: Tensor, how: ConvolutionParameters
) -> tuple[slice, ...]:
    """The outputs whose pixel at a tap is inside the image."""
    found = []
    for axis, r in enumerate(tap):
        t, d, p = how.stride[axis], how.dilation[axis], how.padding[axis]
        low = max(0, -((d * r - p) // t))
        high = (dx.shape[2 + axis] - 1 + p - d * r) // t + 1
        found.append(slice(low, max(low, min(high, g.shape[2 + axis]))))
    return tuple(found)
