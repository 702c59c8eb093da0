"""Where an operand is not zero, whatever holds it.

Machines count non-zeros and look at nothing else of a value, so that a cost depends on
neither the operand's dtype and layout nor torch's modes of the moment (autocast,
inference, default device, default dtype).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

__all__ = ["nonzero_mask", "strided"]

#: Values looked at in one go; temporary memory stays at a few bytes for each.
_CHUNK = 1 << 22

#: Integers of the size of a float, in bytes.
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def nonzero_mask(what: str, value: Any) -> np.ndarray:
    """Boolean array that marks the non-zeros of a tensor or an array, in its shape.

    Args:
        what: the operand and its layer, for messages.
        value: a torch tensor of any dtype, strided, sparse or quantised, on any device
            that holds values; or a numpy array of numbers or booleans.

    Raises:
        ValueError: a value is NaN or infinite, or there are no values to look at (a meta
            or fake tensor, an array of objects).
    """
    try:
        finite, mask = _looked_over(_parts(what, value), tuple(value.shape))
    except (RuntimeError, TypeError) as error:  # of tensors that hold no memory, say
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{what}: its values cannot be read: {reason}") from error
    if not finite:
        raise ValueError(f"{what} holds a NaN or an infinity")
    return mask


def _looked_over(
    parts: Iterable[Any], shape: tuple[int, ...]
) -> tuple[bool, np.ndarray]:
    """Whether all values are finite, and where they are not zero."""
    mask = np.empty(shape, bool)
    flat, at = mask.reshape(-1), 0
    for part in parts:
        found, finite = _looked_at(part)
        if not finite:
            return False, mask
        flat[at : at + found.size] = found.reshape(-1)
        at += found.size
    return True, mask


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a layout and a dtype that torch computes with.

    A sparse or a quantised one is filled in, 8-bit floats become fp32; any other is
    returned as it is.
    """
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    return tensor


def _parts(what: str, value: Any) -> Iterable[Any]:
    """The values in chunks of memory order."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise ValueError(f"{what} has no numbers, its dtype is {array.dtype}")
        return _chunks(array, array.flags.c_contiguous)
    tensor = value.detach()
    if tensor.device.type == "meta":
        raise ValueError(f"{what} is on the meta device, which holds no values")
    tensor = strided(tensor)
    return _chunks(tensor, tensor.is_contiguous())


def _chunks(values: Any, contiguous: bool) -> Iterable[Any]:
    """Parts of at most about ``_CHUNK`` values, in C order."""
    size = int(np.prod(values.shape))
    if size <= _CHUNK:
        return (values,)
    if contiguous or values.ndim == 1:
        flat = values.reshape(-1)
        return (flat[i : i + _CHUNK] for i in range(0, size, _CHUNK))
    return (part for row in values for part in _chunks(row, False))


def _looked_at(part: Any) -> tuple[np.ndarray, bool]:
    """Where a chunk is not zero, and whether all of it is finite."""
    if isinstance(part, np.ndarray):
        exact = part.dtype.kind in "biu"
        return _nonzero_array(part), exact or bool(np.isfinite(part).all())
    part = part.cpu()
    exact = not (part.dtype.is_floating_point or part.dtype.is_complex)
    return _nonzero(part).numpy(), exact or bool(torch.isfinite(part).all())


# Floats are compared as bits without their sign: a thread that flushes subnormal numbers
# takes them for zeros.


def _nonzero(part: torch.Tensor) -> torch.Tensor:
    if part.dtype.is_complex:
        return _nonzero(torch.view_as_real(part.resolve_conj())).any(-1)
    if part.dtype.is_floating_point:
        part = part.resolve_neg().view(_INTEGERS[part.dtype.itemsize]) << 1
    return part != 0


def _nonzero_array(part: np.ndarray) -> np.ndarray:
    if part.dtype.kind == "c":
        return _nonzero_array(np.real(part)) | _nonzero_array(np.imag(part))
    if part.dtype.kind == "f" and part.dtype.itemsize in _INTEGERS:
        integer = f"{part.dtype.byteorder}i{part.dtype.itemsize}"
        part = part.view(integer) << 1
    return part != 0
