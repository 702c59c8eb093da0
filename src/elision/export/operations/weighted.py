"""What convolutions and linear layers have in common: weights, and a factor an output."""

from dataclasses import dataclass

from torch import Tensor

from elision.export.operations.base import Clamped
from elision.export.rescale import Rescale

__all__ = ["Weighted"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighted(Clamped):
    """Sums of int8 codes times int8 weights, which one factor an output rescales.

    Attributes:
        weight: int8, the outputs on its first axis, symmetric, a scale for each output.
        weight_scale: float64, ``(outputs,)``.
        bias: int32, ``(outputs,)``, in units of ``s_x·s_w``.
        rescale: ``M_k = s_x·s_w/s_y``, one for each output.
        input_zero: zero point of the codes that are read.

    Example:
        >>> import torch
        >>> one = torch.ones(1).int()
        >>> layer = Weighted(
        ...     name="a", inputs=("x",), zero=0, weight=torch.ones(1, 1, dtype=torch.int8),
        ...     weight_scale=torch.ones(1), bias=one, rescale=Rescale.of(torch.ones(1)),
        ...     input_zero=0)
        >>> list(layer.constants())
        ['weight', 'bias', 'mantissa', 'shift']
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    rescale: Rescale
    input_zero: int

    def constants(self) -> dict[str, Tensor]:
        """Weight, bias, mantissas and shifts."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "mantissa": self.rescale.mantissa,
            "shift": self.rescale.shift,
        }
