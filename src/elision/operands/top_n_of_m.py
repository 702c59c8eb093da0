"""The N largest of every M consecutive weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.selecting import select
from elision.operands.base import State, Transform

__all__ = ["TopNofM"]


@dataclass(frozen=True)
class TopNofM(Transform):
    """Keep the ``n`` values of largest magnitude in each group of ``m`` (N:M sparsity).

    Groups run along the input channels, as hardware for 2:4 sparsity reads them: axis 1
    of a weight ``(K, C/groups, R, S)`` or ``(columns, inner)``.

    Attributes:
        n: values kept of each group, at least 1.
        m: size of a group, at least ``n``; divides the input channels.

    Example:
        >>> TopNofM(1, 2)(torch.tensor([[1.0, 2.0, -4.0, 3.0]]), [], True).tolist()
        [[0.0, 2.0, -4.0, 0.0]]
    """

    n: int = 2
    m: int = 4

    sparsifies = True

    def check(self) -> None:
        if not 1 <= self.n <= self.m:
            raise ValueError(f"TopNofM(n={self.n}, m={self.m}): must be 1 <= n <= m")

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        return x if self.n == self.m else select(x, self.kept(x))

    def kept(self, x: Tensor) -> Tensor:
        """Boolean mask of the kept values, of the shape of ``x``.

        Raises:
            ValueError: ``m`` does not divide axis 1.
        """
        if x.shape[1] % self.m:
            raise ValueError(
                f"{self.n}:{self.m} sparsity needs input channels divisible by "
                f"{self.m}, the weight has shape {tuple(x.shape)}"
            )
        groups = x.abs().movedim(1, -1).unflatten(-1, (-1, self.m))
        index = groups.topk(self.n, dim=-1, sorted=False).indices
        kept = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, index, True)
        return kept.flatten(-2).movedim(-1, 1)

    def __str__(self) -> str:
        return f"{self.n} of every {self.m} by magnitude"
