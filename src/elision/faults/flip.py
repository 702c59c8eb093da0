"""One bit flips: the smallest fault, on a tensor."""

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from elision.faults.stored import Stored, stored_as

__all__ = ["flip"]

#: Of tensors that :func:`flip` returned: their format, version and stored form. Values do
#: not tell every code (which NaN it is, a scale whose largest element changed).
_HELD: WeakIdKeyDictionary = WeakIdKeyDictionary()


def flip(
    x: Tensor,
    index: int | list[int] | Tensor,
    bit: int | list[int] | Tensor,
    format: str | None = None,
) -> Tensor:
    """Values of ``x`` after bits of its stored form flipped; ``x`` stays as it is.

    A second call with the same places, on what the first returned, restores every bit of
    every format.

    Args:
        x: dense real values of any shape.
        index: place or places in the flattened tensor.
        bit: position in the word of each, 0 the least significant.
        format: a name of :data:`elision.formats.FORMATS`, to which ``x`` is rounded first;
            None is the dtype of ``x``.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        ValueError: a place outside of ``x``, a bit outside of the format, an unknown
            format, NaN where the format has none.
        TypeError: a tensor that is not dense and real.

    Example:
        >>> flip(torch.tensor([1.0, 2.0]), 0, 31)
        tensor([-1.,  2.])
        >>> flip(torch.tensor([1.0, 2.0]), 1, 6, format="int8")
        tensor([1.0079, 0.9921])
    """
    held = _stored(x, format).changed(
        "values", torch.as_tensor(index).reshape(-1), torch.as_tensor(bit).reshape(-1)
    )
    after = held.values()
    if format is not None:
        _HELD[after] = (format, after._version, held)
    return after


def _stored(x: Tensor, format: str | None) -> Stored:
    """The stored form, the very codes of a tensor that :func:`flip` returned unchanged."""
    known = _HELD.get(x)
    if known is not None and known[:2] == (format, x._version):
        return known[2]
    return stored_as(x, format)
