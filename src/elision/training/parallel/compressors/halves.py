"""Float32 to bfloat16 or float16 and back, in one pass by a native kernel or by torch."""

import torch
from torch import Tensor

from elision.engines.native import library

__all__ = ["narrowed", "widened"]

#: Values from which on a native kernel is worth its call (an own choice).
_NATIVE = 4096


def narrowed(
    values: Tensor, memory: Tensor | None, sent: Tensor, most: float, *, keep: bool
) -> tuple[Tensor | None, bool]:
    """Write what is sent of ``values + memory``: the nearest, of magnitude up to ``most``.

    Args:
        values: float32, any shape.
        memory: of its shape, float32; None: nothing is added.
        sent: bfloat16 or float16, one axis, as many values; written.
        most: representable in the dtype of ``sent``; infinity: no limit.
        keep: whether what is not sent is wanted.

    Returns:
        What is not sent, of the shape of ``values``, or None; and whether every value is
        finite (on a GPU always True: nobody has looked).
    """
    if values.numel() >= _NATIVE and values.is_cpu and not library.unavailable():
        values = values.contiguous()
        left = torch.empty_like(values) if keep else None
        held = None if memory is None else memory.contiguous()
        return left, library.narrow(values, held, sent, left, most)
    whole = values if memory is None else memory + values
    sent.copy_(whole.flatten().clamp(-most, most))
    left = (whole - sent.view(whole.shape)).contiguous() if keep else None
    return left, not whole.is_cpu or bool(whole.isfinite().all())


def widened(total: Tensor, ranks: int, out: Tensor) -> Tensor:
    """``out``, contiguous float32, with ``total / ranks`` of a bfloat16 or float16 sum."""
    if total.numel() >= _NATIVE and total.is_cpu and not library.unavailable():
        library.widen(total.contiguous(), ranks, out)
        return out
    return out.copy_(total.view(out.shape)).div_(ranks)
