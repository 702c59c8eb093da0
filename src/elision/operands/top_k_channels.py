"""The channels that matter most to a whole batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.operands.base import State, Transform
from elision.operands.top_k_per_example import check_keep, kept_count

__all__ = ["TopKChannels"]


@dataclass(frozen=True)
class TopKChannels(Transform):
    """Keep ``k`` channels (axis 1) of largest summed magnitude (unified meProp).

    The score of channel ``c`` is ``Σ |x[:, c, ...]|`` over the batch and, for a
    convolution, the plane. The kept channels are a dense block.

    Attributes:
        keep: a count, or a share of the channels in (0, 1], rounded up.

    Example:
        >>> TopKChannels(1)(torch.tensor([[1.0, 2.0], [1.0, -2.0]]), [], True).tolist()
        [[0.0, 2.0], [0.0, -2.0]]
    """

    keep: float | int

    sparsifies = True

    def check(self) -> None:
        check_keep("TopKChannels", self.keep)

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        count = kept_count("TopKChannels", self.keep, x.shape[1])
        if count == x.shape[1]:
            return x
        scores = x.abs().sum([axis for axis in range(x.dim()) if axis != 1])
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept = kept.scatter(0, scores.topk(count).indices, True)
        return torch.where(kept.view(-1, *[1] * (x.dim() - 2)), x, 0)

    def __str__(self) -> str:
        return f"top {self.keep:.4g} of the channels"
