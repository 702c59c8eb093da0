"""Reach: the largest change of a gradient by an error of the saved input it reads.

Convolutions and linear layers: see :mod:`elision.memory.policies.guaranteed`. Batch norm in
training mode, channel ``k`` with ``M = N·H·W`` elements, ``x̂ = (x - μ)/σ`` and the
gradient ``g`` of the output::

    ∂γ = Σ g·x̂,    ∂β = Σ g,    ∂x = γ/σ · (g - mean(g) - x̂·∂γ/M)

The statistics are kept exactly, so an error ``|δ| <= d`` of the input leaves ∂β as it
is, moves ∂γ by ``Σ g·δ/σ``, and, since ``‖x̂‖² <= M``, the input's gradient by at most ::

    ‖δ∂γ‖ <= d · ‖ ‖g‖₁/σ ‖
    ‖δ∂x‖ <= d · ‖ c·(|∂γ| + ‖g‖₁) ‖ + d² · ‖ c·‖g‖₁/σ ‖,    c = |γ| / (σ²·√M)

with the outer norms over channels. The second is AC-GC's rule for batch-norm inputs
(Evans and Aamodt, NeurIPS 2021) with three changes. The published one adds the squares of
the two first-order terms where only their sum bounds the error, leaves out the second
order, and estimates ``‖g‖₁`` by its number of non-zeros times its largest element and
``‖x̂‖²`` by the largest ``|x|``. For independent unbiased errors of variance d² the
1-norms become 2-norms.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Reach", "batch_norm_reaches", "layer_reach"]


@dataclass(frozen=True)
class Reach:
    """Bound on the change of one gradient by an input error of ``d`` per element.

    Attributes:
        norm: norm of the gradient.
        linear, quadratic: the gradient moves by at most ``linear·d + quadratic·d²``.
    """

    norm: float
    linear: float
    quadratic: float = 0.0

    def moved(self, error: float) -> float:
        """Largest change of the gradient."""
        return self.linear * error + self.quadratic * error**2

    def limit(self, budget: float) -> float:
        """The largest error that moves it by no more than ``budget`` of its norm."""
        allowed = budget * self.norm
        root = math.sqrt(self.linear**2 + 4 * self.quadratic * allowed)
        return 2 * allowed / (self.linear + root) if root else math.inf


def layer_reach(
    weight: Tensor, output: Tensor, groups: int, convolution: bool, expected: bool
) -> Reach:
    """Reach into the weight's gradient of a convolution or a linear layer.

    Args:
        weight: gradient of the weight, ``(K, C/groups, R, S)`` or ``(inner, columns)``.
        output: gradient of the output, ``(N, K, P, Q)`` or ``(rows, columns)``.
        groups: of the convolution.
        convolution: whether it is one.
        expected: root mean square under independent errors, not the worst case.
    """
    if convolution:
        inputs = math.prod(weight.shape[1:])  # C/groups · R · S
        positions = output.shape[0] * math.prod(output.shape[2:])
    else:
        inputs, positions = weight.shape[0], output.shape[0]
    factor = math.sqrt(inputs if expected else inputs * positions)
    return Reach(_norm(weight), factor * _norm(output))


def batch_norm_reaches(
    gradients: tuple[Tensor, Tensor],
    output: Tensor,
    scale: Tensor,
    inverse_deviation: Tensor,
    expected: bool,
) -> tuple[Reach, Reach]:
    """Reach into the gradients of a batch norm's input and of its scale.

    Args:
        gradients: of the input, ``(N, K, ...)``, and of the scale, ``(K,)``. They may
            come from an approximate input, which doubles the quadratic part.
        output: gradient of the output, ``(N, K, ...)``.
        scale: γ, ``(K,)``.
        inverse_deviation: 1/σ, ``(K,)``.
        expected: root mean square under independent errors, not the worst case.
    """
    per_channel = output.transpose(0, 1).flatten(1)
    sums = torch.linalg.vector_norm(
        per_channel,
        2 if expected else 1,
        dim=1,
        dtype=_at_least_float32(per_channel),
    )
    of_scale = gradients[1].abs()
    count = per_channel.shape[1]
    spread = scale.detach().abs() * inverse_deviation**2 / math.sqrt(count)
    both = (
        torch.hypot(of_scale * (1 + 1 / count), sums) if expected else of_scale + sums
    )
    moved_scale = _norm(sums * inverse_deviation)
    return (
        Reach(
            _norm(gradients[0]),
            _norm(spread * both),
            2 * _norm(spread * sums * inverse_deviation),
        ),
        Reach(_norm(gradients[1]), moved_scale),
    )


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=_at_least_float32(tensor)))


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    """The type to sum in, to which the tensor's own may be widened only."""
    return torch.promote_types(tensor.dtype, torch.float32)
