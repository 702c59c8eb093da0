"""Selecting values by a mask: what is outside of it is zero, whatever it was.

A product with the mask would give NaN for what is infinite or NaN. Torch's own functions
decide value by value, which takes several times as long as the bits' AND does.
"""

import torch
from torch import Tensor, nn

__all__ = ["select", "select_"]

#: Integers of a value's size, as which its bits are read.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def select(x: Tensor, mask: Tensor) -> Tensor:
    """The values of ``x`` where ``mask`` is true, zero elsewhere; a new tensor.

    Args:
        x: any shape and dtype.
        mask: boolean, of the same shape.

    Example:
        >>> values = torch.tensor([1.0, torch.nan, -torch.inf])
        >>> select(values, torch.tensor([True, False, False])).tolist()
        [1.0, 0.0, 0.0]
    """
    bits = _bits(x, mask)
    if bits is None:
        return torch.where(mask, x, x.new_zeros(()))
    return (x.view(bits) & _ones(mask, bits)).view(x.dtype)


def select_(x: Tensor, mask: Tensor) -> Tensor:
    """As :func:`select`, in place.

    Example:
        >>> select_(torch.tensor([1.0, torch.inf]), torch.tensor([True, False])).tolist()
        [1.0, 0.0]
    """
    bits = _bits(x, mask)
    if bits is None:
        return x.masked_fill_(~mask, 0)
    x.view(bits).bitwise_and_(_ones(mask, bits))
    return x


def _bits(x: Tensor, mask: Tensor) -> torch.dtype | None:
    """The integer dtype of the values' bits; None where torch's functions must do."""
    plain = (
        type(x) in (Tensor, nn.Parameter)
        and x.layout == torch.strided
        and x.shape == mask.shape
        and x.is_floating_point()
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]
    )
    return _BITS.get(x.itemsize) if plain else None


def _ones(mask: Tensor, bits: torch.dtype) -> Tensor:
    """All bits one where the mask is true, zero elsewhere."""
    return mask.view(torch.int8).neg().to(bits)
