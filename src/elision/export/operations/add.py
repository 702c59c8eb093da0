"""Sum of two activations."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.base import Clamped
from elision.export.rescale import Rescale

__all__ = ["Add"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Clamped):
    """Sum of two values of one shape, each with a scale of its own.

    ``y = clamp(z_y + (m_a·(a − z_a) + m_b·(b − z_b) + 2^(n−1)) >> n)`` in 64 bits, with
    ``s_a/s_y = m_a·2^−n`` and likewise for b: one rounding.

    Attributes:
        rescale: the two mantissas, and twice their one shift.
        zeros: zero points of the two that are read.

    Example:
        >>> import torch
        >>> add = Add(name="a", inputs=("x", "y"), zero=0, zeros=(0, 1),
        ...     rescale=Rescale.shared(torch.tensor([1.0, 0.5])))
        >>> add.run(*torch.tensor([[3], [5]], dtype=torch.int8)).item()
        5
    """

    rescale: Rescale
    zeros: tuple[int, int]

    kind: ClassVar[str] = "add"

    def run(self, *codes: Tensor) -> Tensor:
        """Two tensors of one shape to one."""
        mantissas = self.rescale.mantissa.long()
        shift = int(self.rescale.shift[0])
        a, b = (
            (code.long() - zero) * mantissa
            for code, zero, mantissa in zip(codes, self.zeros, mantissas, strict=True)
        )
        return self.clamped((a + b + (1 << (shift - 1))) >> shift)

    def constants(self) -> dict[str, Tensor]:
        """Mantissas and the shift."""
        return {"mantissa": self.rescale.mantissa, "shift": self.rescale.shift[:1]}
