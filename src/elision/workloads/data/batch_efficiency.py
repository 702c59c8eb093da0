"""What padding and waiting cost when sequences of many lengths are trained in batches.

A batch is padded to its longest sequence, and the gradient reduction of a step waits for
the rank whose batch is the largest. With n the number of sequences in the batch of rank r
at step s, m the longest of them and l_i the length of sequence i::

    useful = sum_i l_i / sum_{s,r} n m                  1 - useful is padding
    idle   = 1 - sum_{s,r} n m / sum_s p max_r(n m)     p ranks
    paid   = useful (1 - idle) = sum_i l_i / sum_s p max_r(n m)

Time is counted in tokens: a batch takes a time in proportion to its padded tokens. These
are the terms by which bucketing across nodes was argued for GNMT (Kalamkar et al.,
CLUSTER 2019, doi 10.1109/cluster.2019.8891019); the formulas are stated here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["BatchEfficiency", "Lengths", "batch_efficiency", "length_table"]

#: Integers >= 1 of shape (N,), or (N, sides) where a sequence has a source and a target.
Lengths = Sequence[int] | Sequence[Sequence[int]] | np.ndarray | Tensor


@dataclass(frozen=True)
class BatchEfficiency:
    """Tokens of an epoch of batches, and the shares that padding and waiting waste.

    Attributes:
        tokens: sum of the lengths of the sequences in the batches.
        padded_tokens: tokens that all ranks compute, padding among them: the sum over all
            batches of sequences times longest sequence.
        paid_tokens: tokens that all ranks could have computed in the same time, had none
            waited: the sum over the steps of ranks times the largest padded batch.

    Example:
        >>> BatchEfficiency(tokens=60, padded_tokens=78, paid_tokens=108)
        BatchEfficiency(useful=0.769, idle=0.278, paid=0.556)
    """

    tokens: int
    padded_tokens: int
    paid_tokens: int

    @property
    def useful(self) -> float:
        """Share of useful tokens, in (0, 1]: ``tokens / padded_tokens``."""
        return self.tokens / self.padded_tokens

    @property
    def idle(self) -> float:
        """Share of the ranks' time spent waiting: ``1 - padded_tokens / paid_tokens``."""
        return 1 - self.padded_tokens / self.paid_tokens

    @property
    def paid(self) -> float:
        """Share of the paid time that is useful: ``tokens / paid_tokens``."""
        return self.tokens / self.paid_tokens

    def __repr__(self) -> str:
        shares = f"useful={self.useful:.3f}, idle={self.idle:.3f}, paid={self.paid:.3f}"
        return f"{type(self).__name__}({shares})"


def batch_efficiency(
    lengths: Lengths, plan: Sequence[Sequence[Sequence[int] | Tensor]]
) -> BatchEfficiency:
    """Tokens that a plan of batches computes, and what its ranks wait.

    Args:
        lengths: integers >= 1, of shape (N,) or (N, sides). A batch of sequences with two
            sides pays its longest source plus its longest target.
        plan: indices in [0, N), by step, rank and place in the batch.

    Raises:
        ValueError: a length is below 1, there is none, or the plan is empty or has an
            empty batch.

    Example:
        >>> batch_efficiency([2, 9, 4, 3], [[[0, 3], [1, 2]]])
        BatchEfficiency(useful=0.750, idle=0.333, paid=0.500)
    """
    table = length_table("batch_efficiency", lengths)
    tokens = padded = paid = 0
    for number, step in enumerate(plan):
        if not step or any(len(batch) == 0 for batch in step):
            raise ValueError(
                f"batch_efficiency(plan): step {number} has an empty batch"
            )
        chosen = [table[torch.as_tensor(batch)] for batch in step]
        areas = [len(rows) * int(rows.amax(0).sum()) for rows in chosen]
        tokens += sum(int(rows.sum()) for rows in chosen)
        padded += sum(areas)
        paid += len(areas) * max(areas)
    if not paid:
        raise ValueError("batch_efficiency(plan): has no step")
    return BatchEfficiency(tokens, padded, paid)


def length_table(owner: str, lengths: Any) -> Tensor:
    """Lengths as an int64 tensor of shape (N, sides), checked.

    Raises:
        ValueError: empty, not of shape (N,) or (N, sides), not integers, or below 1; the
            message starts with ``owner``.
    """
    what = f"{owner}(lengths)"
    try:
        on_cpu = lengths.cpu() if isinstance(lengths, Tensor) else lengths
        values = np.asarray(on_cpu)
    except ValueError:  # numpy's words for rows of unequal length
        values = np.empty(0, dtype=object)
    else:
        if values.size == 0:
            raise ValueError(f"{what}: is empty; must hold one length per sequence")
    if values.dtype.kind not in "iu" or values.ndim not in (1, 2):
        raise ValueError(
            f"{what}: must be integers of shape (N,) or (N, sides), got "
            f"{values.dtype} of shape {values.shape}"
        )
    low = values.reshape(len(values), -1).min(1) < 1
    if low.any():
        first = int(low.argmax())
        raise ValueError(
            f"{what}: must be integers >= 1, sequence {first} has length "
            f"{values[first].tolist()}"
        )
    return torch.from_numpy(values.reshape(len(values), -1).astype(np.int64))
