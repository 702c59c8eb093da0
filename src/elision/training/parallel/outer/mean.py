"""Mean: a weighted mean over ranks, those of this process and those of others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Mean"]


class Mean:
    """Weighted mean over all ranks, of lists of tensors with equal shapes.

    Tensors of one dtype and device travel in one collective, in the order of the list.
    Every process ends with the same bits: the sum is made by one all-reduce.

    Args:
        weights: of the ranks held by this process.
        group: process group; default: all processes, or none without
            ``torch.distributed``.

    Attributes:
        shares: of each rank held here in the mean.
        processes: their number.
        ranks: of all processes together.

    Example:
        >>> mean = Mean([3.0, 1.0])
        >>> mean([[torch.tensor([4.0])], [torch.tensor([0.0])]])
        [tensor([3.])]
    """

    def __init__(self, weights: Sequence[float], group: Any = None) -> None:
        self._group = group
        self._connected = (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        )
        everyone = self.gathered(list(weights))
        total = sum(sum(each) for each in everyone)
        self.shares = [weight / total for weight in weights]
        self.processes = len(everyone)
        self.ranks = sum(len(each) for each in everyone)

    def __call__(self, tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The mean (a collective call).

        Args:
            tensors: a list for each rank held here.
        """
        kinds = [(t.dtype, t.device) for t in tensors[0]]
        means: list[Tensor] = [t.new_empty(0) for t in tensors[0]]
        for kind in dict.fromkeys(kinds):
            which = [i for i, own in enumerate(kinds) if own == kind]
            flat = torch.zeros(0)
            for share, own in zip(self.shares, tensors, strict=True):
                part = torch.cat([own[i].reshape(-1) for i in which]) * share
                flat = part if flat.numel() == 0 else flat.add_(part)
            if self._connected:
                torch.distributed.all_reduce(flat, group=self._group)
            parts = flat.split([tensors[0][i].numel() for i in which])
            for i, part in zip(which, parts, strict=True):
                means[i] = part.view(tensors[0][i].shape)
        return means

    def gathered(self, value: Any) -> list[Any]:
        """The value of every process, in their order (a collective call)."""
        if not self._connected:
            return [value]
        count = torch.distributed.get_world_size(self._group)
        found: list[Any] = [None] * count
        torch.distributed.all_gather_object(found, value, group=self._group)
        return found

    def from_first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, on every process (a collective call)."""
        tensor = tensor.clone()
        if self._connected:
            torch.distributed.broadcast(tensor, group=self._group, group_src=0)
        return tensor
