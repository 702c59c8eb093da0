"""The largest values of each example of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.operands.base import State, Transform, share_of

__all__ = ["TopKPerExample", "kept_count"]


def kept_count(owner: str, keep: float | int, size: int) -> int:
    """Number of the ``size`` values kept: ``keep`` itself, or its share rounded up.

    Raises:
        ValueError: a count larger than ``size``.
    """
    if isinstance(keep, int):
        if keep > size:
            raise ValueError(f"{owner}(keep={keep}): the operand has only {size}")
        return keep
    return share_of(keep, size)


def check_keep(owner: str, keep: float | int) -> None:
    """Raise ValueError unless ``keep`` is a count >= 1 or a share in (0, 1]."""
    count = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 1
    if not count and not (isinstance(keep, float) and 0 < keep <= 1):
        raise ValueError(
            f"{owner}(keep={keep!r}): must be a count >= 1 or a share in (0, 1]"
        )


@dataclass(frozen=True)
class TopKPerExample(Transform):
    """Keep exactly ``k`` values of each example, those of largest magnitude (meProp).

    An example is one index of the first axis. Ties are cut, so the count is exact.

    Attributes:
        keep: a count, or a share of the example's values in (0, 1], rounded up.

    Example:
        >>> TopKPerExample(1)(torch.tensor([[1.0, 2.0], [3.0, -2.0]]), [], True).tolist()
        [[0.0, 2.0], [3.0, 0.0]]
    """

    keep: float | int

    sparsifies = True

    def check(self) -> None:
        check_keep("TopKPerExample", self.keep)

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        rows = x.flatten(1)
        count = kept_count("TopKPerExample", self.keep, rows.shape[1])
        if count == rows.shape[1]:
            return x
        index = rows.abs().topk(count, dim=1, sorted=False).indices
        kept = torch.zeros_like(rows).scatter(1, index, rows.gather(1, index))
        return kept.view_as(x)

    def __str__(self) -> str:
        return f"top {self.keep:.4g} of each example"
