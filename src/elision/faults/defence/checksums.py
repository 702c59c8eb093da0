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
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.faults.defence.sums import Sums, sums_of, weighted
from elision.faults.defence.windows import by_channel, correlated, met, met_inside
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
    read: Callable[[Tensor, int], Sums] = sums_of,
) -> Checked:
    """Compare the sums of one product's result with those of its operands.

    Args:
        kind: which product.
        first: the operand that ``kind.operands`` names first, in torch's layout.
        second: the other.
        result: ``Y``, ``dX`` or ``dW``.
        bias: that the forward product added, ``(K,)``.
        convolution: parameters of one to three axes; None for a matrix product.
        read: gives the sums of an operand, so that those of another product's are used
            again.

    Raises:
        ValueError: a transposed convolution, whose checksums are not known here.
    """
    if not is_linear_in_sums(convolution):
        raise ValueError("check: a transposed convolution has no checksums here")
    how = convolution or ConvolutionParameters((), (), ())
    if kind is Product.FORWARD:
        return _forward(read(first, how.groups), first, second, result, bias, how)
    if kind is Product.INPUT_GRAD:
        return _input_grad(read(first, how.groups), first, second, result, how)
    both = read(first, how.groups), read(second, how.groups)
    return _weight_grad(*both, first, second, result, how)


def _forward(
    of_x: Sums,
    x: Tensor,
    w: Tensor,
    y: Tensor,
    bias: Tensor | None,
    how: ConvolutionParameters,
) -> Checked:
    own = met(of_x.by_place, w.shape[2:], y.shape[2:], how)
    counts = y.shape[0] * math.prod(y.shape[2:])
    taps = _by_tap(w)
    expected, norms = weighted(taps, own, how.groups)
    size = _bound(norms, of_x.sizes, own.shape[1], how.groups)
    if bias is not None:
        expected = expected + _wide(bias) * counts
        size = size + _wide(bias).abs() * counts
    return Checked(by_channel(y), expected, _tolerance(size, taps[0].numel(), x, y))


def _input_grad(
    of_g: Sums, g: Tensor, w: Tensor, dx: Tensor, how: ConvolutionParameters
) -> Checked:
    own = met_inside(of_g.by_place, w.shape[2:], dx.shape[2:], how)
    expected, norms = weighted(_by_tap(w), own, how.groups, transposed=True)
    size = _bound(norms, of_g.sizes, own.shape[1], how.groups)
    terms = w.shape[0] // how.groups * own.shape[1]
    return Checked(by_channel(dx), expected, _tolerance(size, terms, g, dx))


def _weight_grad(
    of_g: Sums,
    of_x: Sums,
    g: Tensor,
    x: Tensor,
    dw: Tensor,
    how: ConvolutionParameters,
) -> Checked:
    expected = correlated(of_g.by_pixel, of_x.by_pixel, dw.shape[2:], how)
    rows = dw.unflatten(0, (how.groups, -1))
    found = _sum(rows.flatten(3) if dw.dim() > 2 else rows[..., None], [1, 2])
    # Σ_npq (Σ_k|G|)(Σ_c|X|) ≤ √(K·C)·‖G‖·‖X‖, of each group.
    norms = [t.squares.unflatten(0, (how.groups, -1)) for t in (of_g, of_x)]
    channels = norms[0].shape[1] * norms[1].shape[1]
    size = (channels * norms[0].sum(1) * norms[1].sum(1)).double().sqrt()
    size = size[:, None].expand_as(expected)
    terms = g.shape[0] * math.prod(g.shape[2:])
    return Checked(found, expected, _tolerance(size, terms, g, dw))


def _tolerance(size: Tensor, terms: int, operand: Tensor, result: Tensor) -> Tensor:
    """The rounding that a checksum may show.

    Args:
        size: at least the sum of the magnitudes of all terms of all values that are added.
        terms: of one value.
        operand: an operand of the product; its dtype rounds.
        result: of the product.
    """
    if not result.is_floating_point():
        return torch.zeros_like(size)
    # Sums are in float32 at least, whatever the operands.
    unit = torch.finfo(torch.promote_types(operand.dtype, torch.float32)).eps / 2
    stored = torch.finfo(result.dtype).eps / 2
    # A term is rounded in the product, in the sums over examples, and in those over
    # channels; sums over pixels are in float64, by rows, or by halves.
    added = (terms, operand.shape[0], operand.shape[1], result.shape[1])
    each = _SPREADS * unit * sum(map(math.sqrt, added))
    return (each + stored) * size.double()


def _sum(x: Tensor, axes: list[int]) -> Tensor:
    """Sum in the tensor's own arithmetic, at least float32; then float64 or int64."""
    if not x.is_floating_point():
        return x.sum(axes, dtype=torch.int64)
    own = torch.promote_types(x.dtype, torch.float32)
    return x.sum(axes, dtype=own).double()


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x.long()


def _by_tap(w: Tensor) -> Tensor:
    """``(K, C/groups, taps)`` of a weight."""
    return w.flatten(2) if w.dim() > 2 else w[..., None]


def _bound(norms: Tensor, sizes: Tensor, taps: int, groups: int) -> Tensor:
    """At least ``Σ_ct |W[k, c, t]|·Σ|X[c]|``: the norm of one times that of the other.

    Args:
        norms: of the weights of each checksum, ``(K,)``.
        sizes: sums of magnitudes of each channel, ``(C,)``.
        taps: of the kernel.
        groups: of channels.
    """
    of_x = sizes.double().square().unflatten(0, (groups, -1)).sum(1, keepdim=True)
    return (norms.unflatten(0, (groups, -1)) * (of_x * taps).sqrt()).flatten()
