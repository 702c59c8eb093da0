"""The kernel slices or filters of largest L1 norm (structured SWAT)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import number, one_of
from elision.operands.base import State, Transform, share_of

__all__ = ["TopKSlices"]


@dataclass(frozen=True)
class TopKSlices(Transform):
    """Keep the slices of a weight whose sum of magnitudes is largest.

    A slice is ``W[k, c]`` for ``"channel"`` (one input channel of one filter, the
    published ``structured_channel``) and ``W[k]`` for ``"filter"``. Exactly
    ``ceil((1 − sparsity)·slices)`` are kept.

    Attributes:
        sparsity: fraction of the slices left out, in [0, 1).
        slices: ``"channel"`` or ``"filter"``.

    Example:
        >>> weight = torch.tensor([[1.0, 1.0], [3.0, 0.5]])
        >>> TopKSlices(0.5, "filter")(weight, [], True).tolist()
        [[0.0, 0.0], [3.0, 0.5]]
    """

    sparsity: float
    slices: Literal["channel", "filter"] = "channel"

    sparsifies = True

    def check(self) -> None:
        number("TopKSlices", "sparsity", self.sparsity, "[0, 1)")
        one_of("TopKSlices", "slices", self.slices, ("channel", "filter"))

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        if self.sparsity == 0 or not x.numel():
            return x
        leading = 2 if self.slices == "channel" else 1
        scores = x.abs().flatten(leading).sum(-1) if x.dim() > leading else x.abs()
        flat = scores.flatten()
        best = flat.topk(share_of(1 - self.sparsity, flat.numel()), sorted=False)
        kept = torch.zeros_like(flat, dtype=torch.bool).scatter(0, best.indices, True)
        ones = [1] * (x.dim() - scores.dim())
        return torch.where(kept.view(*scores.shape, *ones), x, 0)

    def __str__(self) -> str:
        return f"top {1 - self.sparsity:.4g} of the {self.slices}s by L1 norm"
