"""Number formats as data: one file per family.

:data:`FORMATS` names them; :func:`round` is the fast way to a format's values.
"""

from torch import Tensor

from elision.common import checks
from elision.formats.affine import Affine as Affine
from elision.formats.base import Coded as Coded
from elision.formats.base import Format as Format
from elision.formats.base import Rounding as Rounding
from elision.formats.catalogue import FLOATS as FLOATS
from elision.formats.catalogue import FORMATS as FORMATS
from elision.formats.dynamic_fixed import DynamicFixed as DynamicFixed
from elision.formats.fast import fast_round as fast_round
from elision.formats.floating import Floating as Floating
from elision.formats.grouping import Grouping as Grouping
from elision.formats.integer import Integer as Integer
from elision.formats.naming import format_named as format_named
from elision.formats.naming import scaled as scaled
from elision.formats.scaled import Encoded as Encoded
from elision.formats.scaled import Scaled as Scaled

__all__ = [
    "FLOATS",
    "FORMATS",
    "Affine",
    "Coded",
    "DynamicFixed",
    "Encoded",
    "Floating",
    "Format",
    "Grouping",
    "Integer",
    "Rounding",
    "Scaled",
    "fast_round",
    "format_named",
    "round",
    "scaled",
]


def round(
    x: Tensor, name: str, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
) -> Tensor:
    """Values of a format in place of ``x``, of its shape and dtype.

    Args:
        x: floating-point values of any shape.
        name: of a format, see :func:`format_named`.
        rounding: see :data:`Rounding`.
        seed: of stochastic rounding, which depends on the seed and on an element's
            index alone.
        axis: the dimension along which blocks run; of a format with one scale per
            channel, the dimension whose slices have a scale each.

    Raises:
        ValueError: an unknown format or rounding, a seed that is no integer, or an axis
            that ``x`` has not.
        TypeError: ``x`` is no dense tensor of real floating point.

    Example:
        >>> import torch
        >>> round(torch.tensor([0.3, 1000.0]), "fp8-e5m2").tolist()
        [0.3125, 1024.0]
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            "round: x must be a dense tensor of real floating point, got "
            f"{type(x).__name__}"
        )
    checks.integer("round", "seed", seed, "(-inf, inf)")
    return fast_round(format_named(name), x, rounding, seed, axis)
