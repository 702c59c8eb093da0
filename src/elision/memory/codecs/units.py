"""Units of a norm's input: the mean and the deviation that it is normalised with.

A norm divides by the deviation of each channel (batch norm), group of channels or row,
and so multiplies whatever error its input has. On one grid for channels of deviations
0.01 and 10, the former would be lost in the latter's rounding error. Measured in its own
deviations every value has the same error, whatever its channel's size. The statistics
are in the node anyway.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elision.memory.saved.roles import Role, Slot

__all__ = ["Units", "units_of"]


@dataclass(frozen=True)
class Units:
    """Mean and deviation of every value, broadcast over the tensor.

    Attributes:
        mean: the mean.
        inverse: one over the deviation.
        groups: of channels, into which the second axis is split for these two; 0: of
            the tensor as it is.
    """

    mean: Tensor
    inverse: Tensor
    groups: int = 0

    def measure(self, tensor: Tensor) -> Tensor:
        """The tensor, normalised: a copy in float32 or wider, in the same memory order."""
        return (self._split(tensor) - self.mean).mul_(self.inverse)

    def restore_(self, values: Tensor) -> Tensor:
        """The tensor from normalised values, which are written over."""
        self._split(values).div_(self.inverse).add_(self.mean)
        return values

    def error(self, error: float) -> float:
        """Largest error of a restored value, given that of a normalised one."""
        lost = 4 * torch.finfo(torch.float32).eps * float(self.mean.abs().max())
        return error / float(self.inverse.min()) + lost

    def largest(self, normalised: float) -> float:
        """Largest magnitude of a value, given that of a normalised one."""
        return normalised / float(self.inverse.min()) + float(self.mean.abs().max())

    def _split(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(1, (self.groups, -1)) if self.groups else tensor


def units_of(slot: Slot, tensor: Tensor, group: int) -> Units | None:
    """Units of a norm's input in which groups of values would span several statistics.

    Args:
        slot: the consumer.
        tensor: dense.
        group: values of a group, which follow memory order.

    Returns:
        None if it is no norm's input, or every group lies within one statistic.
    """
    if slot.role is not Role.NORM_INPUT or slot.node is None or tensor.dim() < 2:
        return None
    units = _units(slot.node, tensor)
    if units is None or units.mean.numel() in (0, 1, tensor.numel()):
        return None
    run = _run(units.mean.shape, units._split(tensor)) if tensor.is_contiguous() else 1
    return units if run % group else None


def _units(node: Any, tensor: Tensor) -> Units | None:
    """The statistics of a norm's node, in shapes that broadcast over the tensor."""
    kind, shape = type(node).__name__, tensor.shape
    ones = [1] * (len(shape) - 2)
    if kind in ("NativeBatchNormBackward0", "CudnnBatchNormBackward0"):
        if kind.startswith("Cudnn") or node._saved_training:
            found = node._saved_result1, node._saved_result2
        else:
            mean, variance = node._saved_running_mean, node._saved_running_var
            if mean is None or variance is None:
                return None
            found = mean.clone(), (variance + node._saved_eps).rsqrt()
        if found[0].numel() != shape[1]:
            return None
        return Units(*(f.detach().view(1, -1, *ones) for f in found))
    if kind == "NativeGroupNormBackward0":
        found = node._saved_result1.detach(), node._saved_result2.detach()
        count = found[0].shape[1]
        if found[0].shape[0] != shape[0] or shape[1] % count:
            return None
        return Units(*(f.view(-1, count, 1, *ones) for f in found), groups=count)
    if kind == "NativeLayerNormBackward0":
        mean, inverse = node._saved_result1.detach(), node._saved_result2.detach()
        if mean.dim() == len(shape) and mean.shape[0] == shape[0]:
            return Units(mean, inverse)
    return None


def _run(statistics: torch.Size, tensor: Tensor) -> int:
    """Successive values of a contiguous tensor that certainly share a statistic."""
    run = 1
    for size, count in zip(reversed(tensor.shape), reversed(statistics), strict=True):
        if count != 1 and size != 1:
            break
        run *= size
    return run
