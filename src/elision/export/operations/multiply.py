"""Product of two activations."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.base import Clamped
from elision.export.rescale import Rescale

__all__ = ["Multiply"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiply(Clamped):
    """Product of two values, of one shape or the second with one number a channel.

    ``y = clamp(z_y + M·(a − z_a)·(b − z_b))``, ``M = s_a·s_b/s_y``.

    Attributes:
        rescale: ``M``, one number.
        zeros: zero points of the two that are read.

    Example:
        >>> import torch
        >>> product = Multiply(name="a", inputs=("x", "y"), zero=0, zeros=(0, 1),
        ...     rescale=Rescale.of(torch.tensor([0.5])))
        >>> product.run(*torch.tensor([[4], [6]], dtype=torch.int8)).item()
        10
    """

    rescale: Rescale
    zeros: tuple[int, int]

    kind: ClassVar[str] = "multiply"

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, C, H, W)`` and ``(N, C, H, W)`` or ``(N, C, 1, 1)`` to the first's shape."""
        a, b = (code.int() - z for code, z in zip(codes, self.zeros, strict=True))
        return self.clamped(self.rescale(a * b))

    def constants(self) -> dict[str, Tensor]:
        """Mantissa and shift."""
        return {"mantissa": self.rescale.mantissa, "shift": self.rescale.shift}
