"""Rounding by whatever gives the bits of :meth:`Format.round` soonest.

In order: a native kernel; torch's conversion to the format's dtype; arithmetic on the bits
of float32; the formulas. In a graph of ``torch.compile`` it is the operator
``elision::round``, which does the same when the graph runs.
"""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from elision.formats import bitwise, native
from elision.formats.base import IN_GRAPHS, Format, Rounding
from elision.formats.floating import Floating

__all__ = ["fast_round"]


def fast_round(
    format: Format,
    x: Tensor,
    rounding: Rounding = "nearest",
    seed: int = 0,
    axis: int = -1,
) -> Tensor:
    """:meth:`Format.round` by a native kernel, or what else gives the same bits.

    The result is a tensor of its own and has no gradient: rounding is flat almost
    everywhere. What trains through it says which gradient it takes instead.

    Args:
        format: the format to round to.
        x: values of any shape.
        rounding: as of :meth:`Format.round`.
        seed: as of :meth:`Format.round`.
        axis: as of :meth:`Format.round`.

    Raises:
        ValueError: as :meth:`Format.round`.

    Example:
        >>> from elision.formats import FORMATS
        >>> fast_round(FORMATS["fp8-e5m2"].saturating, torch.tensor([1e9])).tolist()
        [57344.0]
    """
    if torch.compiler.is_compiling() or isinstance(x, FakeTensor):
        return torch.ops.elision.round(
            x.detach(), format.in_graph(), rounding, seed, axis
        )
    return _eager(format, x.detach(), rounding, seed, axis)


def _eager(
    format: Format, x: Tensor, rounding: Rounding, seed: int, axis: int
) -> Tensor:
    found = native.rounded(x, format, rounding, seed, axis)
    if found is None:
        _refuse_other(x)
        if x.is_meta:
            return torch.empty_like(x)
    if found is None and rounding == "nearest" and isinstance(format, Floating):
        found = _nearest(format, x)
    return format.round(x, rounding, seed, axis) if found is None else found


def _refuse_other(x: Tensor) -> None:
    """Raise TypeError for what no format holds: neither is it rounded on the way."""
    if not x.is_floating_point() or x.layout != torch.strided:
        kind = x.dtype if x.layout == torch.strided else f"a tensor of {x.layout}"
        raise TypeError(
            f"round: x must be a dense tensor of real floating point, got {kind}"
        )


def _nearest(format: Floating, x: Tensor) -> Tensor | None:
    """The nearest values in float32, in which those of up to 32 bits are exact."""
    if x.dtype.itemsize > 4:  # rounded to float32 first, it would be rounded twice
        return None
    saturates = format.saturates or format.specials == "finite"
    if format.dtype is None or not (saturates or format.specials == "ieee"):
        found = bitwise.nearest(x.float(), format)
        return None if found is None else found.to(x.dtype)
    values = x.float()
    if saturates:
        # clamp keeps NaN a NaN, so a diverged run still shows.
        values = values.clamp(-format.largest, format.largest)
    found = values.to(format.dtype).to(x.dtype)
    return found.clone() if found is x else found


@torch.library.custom_op("elision::round", mutates_args=())
def _round(x: Tensor, format: str, rounding: str, seed: int, axis: int) -> Tensor:
    if format not in IN_GRAPHS:
        raise RuntimeError(
            f"no number format {format!r} in this process: a compiled graph runs where "
            "it was compiled"
        )
    found = _eager(IN_GRAPHS[format], x, rounding, seed, axis)  # pyright: ignore[reportArgumentType]
    # The operator promises the layout of empty_like(x).
    promised = torch.empty_like(x)
    return found if found.stride() == promised.stride() else promised.copy_(found)


@_round.register_fake
def _(x: Tensor, format: str, rounding: str, seed: int, axis: int) -> Tensor:
    del format, rounding, seed, axis
    return torch.empty_like(x)
