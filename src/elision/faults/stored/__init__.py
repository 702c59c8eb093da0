"""How a memory holds a tensor: one file per form."""

from collections.abc import Callable

from torch import Tensor

from elision.common.names import lookup
from elision.faults.stored.base import ACTIONS as ACTIONS
from elision.faults.stored.base import Action as Action
from elision.faults.stored.base import Part as Part
from elision.faults.stored.base import Stored as Stored
from elision.faults.stored.plain import Codes as Codes
from elision.faults.stored.plain import Native as Native
from elision.faults.stored.scaled import ScaledCodes as ScaledCodes
from elision.faults.stored.sparse import Bitmap as Bitmap
from elision.faults.stored.sparse import Csr as Csr
from elision.formats import Coded, Scaled, format_named

__all__ = [
    "ACTIONS",
    "STORAGES",
    "Action",
    "Bitmap",
    "Codes",
    "Csr",
    "Native",
    "Part",
    "ScaledCodes",
    "Stored",
    "stored_as",
]


def _dense(x: Tensor, store: Callable[[Tensor], Stored]) -> Stored:
    return store(x)


#: Storages of a tensor with zeros, by name: all values, or the others and their places.
STORAGES: dict[str, Callable[[Tensor, Callable[[Tensor], Stored]], Stored]] = {
    "dense": _dense,
    "csr": Csr.of,
    "bitmap": Bitmap.of,
}


def stored_as(x: Tensor, format: str | None = None, storage: str = "dense") -> Stored:
    """The bits by which a memory holds ``x``.

    Args:
        x: dense real values of any shape.
        format: a name of :data:`elision.formats.FORMATS`, to which ``x`` is rounded; None
            is its own dtype.
        storage: a name of :data:`STORAGES`.

    Raises:
        ValueError: an unknown format or storage, or NaN where the format has none.
        TypeError: a tensor that is not dense and real, or integers with a format.

    Example:
        >>> import torch
        >>> stored_as(torch.tensor([[0.0, 0.5]]), "int8", "csr").size_bits
        120
    """
    place = lookup("storage", storage, STORAGES)
    if format is None:
        return place(x, Native.of)
    found = format_named(format)
    if not x.is_floating_point():
        raise TypeError(
            f"stored_as(format={format!r}): x must be of floating point, got "
            f"{str(x.dtype).removeprefix('torch.')}"
        )
    if isinstance(found, Scaled):
        return place(x, lambda v: ScaledCodes.of(v, found))
    assert isinstance(found, Coded)
    return place(x, lambda v: Codes.of(v, found))
