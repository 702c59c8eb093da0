"""Number formats as data: one file per family.

:data:`FORMATS` names them; :func:`round` is the fast way to a format's values.
"""

import torch
from torch import Tensor

from elision.common.names import lookup
from elision.formats.base import Format as Format
from elision.formats.base import Rounding as Rounding
from elision.formats.floating import Floating as Floating

__all__ = ["FORMATS", "Floating", "Format", "Rounding", "fast_round", "round"]

#: Formats by the names that recipes use.
FORMATS: dict[str, Floating] = {
    f.name: f
    for f in (
        Floating("fp32", 8, 23, bias=127, dtype=torch.float32),
        Floating("bf16", 8, 7, bias=127, dtype=torch.bfloat16),
        Floating("fp16", 5, 10, bias=15, dtype=torch.float16),
        Floating(
            "fp8-e4m3",
            exponent_bits=4,
            fraction_bits=3,
            bias=7,
            specials="nan",
            saturates=True,  # as torch's conversion, which has no infinity to give
            dtype=torch.float8_e4m3fn,
        ),
        Floating("fp8-e5m2", 5, 2, bias=15, dtype=torch.float8_e5m2),
    )
}


def round(
    x: Tensor, name: str, rounding: Rounding = "nearest", seed: int = 0
) -> Tensor:
    """Values of a format in place of ``x``, of its shape and dtype.

    Args:
        x: floating-point values of any shape.
        name: a key of :data:`FORMATS`.
        rounding: see :data:`Rounding`.
        seed: of stochastic rounding, which depends on the seed and on an element's
            index alone.

    Raises:
        ValueError: an unknown format or rounding.

    Example:
        >>> round(torch.tensor([0.3, 1000.0]), "fp8-e5m2").tolist()
        [0.3125, 1024.0]
    """
    return fast_round(lookup("number format", name, FORMATS), x, rounding, seed)


def fast_round(
    format: Floating, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
) -> Tensor:
    """:meth:`Format.round` by torch's conversion where that gives the same values.

    That is the nearest value of an ``x`` of 32 bits or fewer, in a format that saturates
    or has an infinity; from float64, torch rounds twice.

    Example:
        >>> fast_round(FORMATS["fp8-e5m2"].saturating, torch.tensor([1e9])).tolist()
        [57344.0]
    """
    dtype = format.dtype
    known = dtype is not None and (format.saturates or format.specials == "ieee")
    if not known or rounding != "nearest" or x.dtype.itemsize > 4:
        return format.round(x, rounding, seed)
    values = x.float()
    if format.saturates:
        # clamp keeps NaN a NaN, so a diverged run still shows.
        values = values.clamp(-format.largest, format.largest)
    return values.to(dtype).to(x.dtype)
