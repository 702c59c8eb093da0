"""One call of a kernel, and whether its results are what its operands allow.

A sum of n products in a format of unit roundoff u differs from the exact one by at most
``n·u/(1 - n·u)·Σ|a||b|`` (Higham, *Accuracy and Stability of Numerical Algorithms*, 3.1),
which ``n·eps·Σ|a||b|`` bounds as ``eps = 2u``; each product that underflows adds half a
smallest subnormal. Kernels that take numbers below the smallest normal one for zero add
that number a product, times the other operand.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Call", "Case", "Draw", "Judged", "Values", "judged", "summed"]

#: Operands or results of a call.
Values = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call on drawn operands.

    Attributes:
        values: the operands, about 1 in magnitude; their zeros are a pattern.
        run: the kernel's results.
        dense: torch's, in the dtype of the operands given.
        error: largest difference that rounding allows, of operands in float64, result by
            result; None: results are equal to the last bit.
        size: magnitude that a partial sum can reach, likewise; None: nothing is summed.
        largest: of the format that sums are kept in.
        spreads: which results a value that is not finite reaches: ``"as torch"``;
            ``"nan or inf"``, the same, whichever of both it makes there; ``"more"``, the
            rest of a tile; ``"less"``, none behind zeros or closed gates that torch
            multiplies.
        of_floats: whether any floating-point operands make sense; else only those drawn,
            and some that are not finite.
    """

    values: Values
    run: Callable[..., Values]
    dense: Callable[..., Values]
    error: Callable[..., Values] | None = None
    size: Callable[..., Values] | None = None
    largest: float = torch.finfo(torch.float32).max
    spreads: Literal["as torch", "nan or inf", "more", "less"] = "as torch"
    of_floats: bool = True


#: Makes a call, a small one or one that is worth timing; None: this CPU has no such kernel.
Draw = Callable[[random.Random, bool], Call | None]


@dataclass(frozen=True)
class Case:
    """A kernel that the campaign calls.

    Attributes:
        name: for tables.
        functions: of the built library that it calls, without ``elision_``.
        draw: makes one call.
    """

    name: str
    functions: tuple[str, ...]
    draw: Draw


@dataclass(frozen=True)
class Judged:
    """A kernel's results beside the exact ones.

    Attributes:
        error: largest difference over what rounding allows; 0: equal.
        wrong: what does not hold, in words; None: all does.
        overflowed: results whose sums could leave the range on the way, so that only
            their order decides whether they are finite.
    """

    error: float
    wrong: str | None
    overflowed: int


def judged(call: Call, values: Values) -> Judged:
    """Run a kernel on some operands and compare.

    Args:
        call: the kernel.
        values: operands of the shapes and dtypes of the call's own.
    """
    found, same = call.run(*values), call.dense(*values)
    exact = same if call.error is None else call.dense(*map(_wide, values))
    finite = tuple(map(_finite, values))
    bounds = None if call.error is None else call.error(*finite)
    sizes = None if call.size is None else call.size(*finite)
    worst, overflowed, wrong = 0.0, 0, []
    for place, (ours, theirs) in enumerate(zip(found, exact, strict=True)):
        if ours.shape != theirs.shape:
            return Judged(0, f"result {place} is {tuple(ours.shape)}", 0)
        safe = torch.ones(ours.shape, dtype=torch.bool)
        if sizes is not None:
            safe = sizes[place] < call.largest / 2
            overflowed += int((~safe).sum())
        # Torch's own ways differ in what padding's zeros make of an infinity.
        kinds = [_kind(x.to(ours.dtype)) for x in (ours, theirs, same[place])]
        wrong += _other_kinds(kinds, safe, call.spreads, place)
        both = safe & ours.isfinite() & theirs.isfinite()
        difference = (ours.double() - theirs.double()).abs()[both]
        if bounds is None and difference.any():
            different = int((difference > 0).sum())
            wrong.append(f"result {place}: {different} of {len(difference)} differ")
        if bounds is not None and len(difference):
            worst = max(worst, (difference / bounds[place][both]).max().item())
    if worst > 1:
        wrong.append(f"{worst:.3g} times the error that rounding allows")
    if call.spreads == "less" and not _shows(found, exact):
        wrong.append("what is not finite reaches no result")
    return Judged(worst, wrong[0] if wrong else None, overflowed)


def _kind(x: Tensor) -> Tensor:
    """0: finite, 1: NaN, 2 and 3: the infinities."""
    return x.isnan() + 2 * x.isposinf() + 3 * x.isneginf()


def _other_kinds(
    kinds: list[Tensor], safe: Tensor, spreads: str, place: int
) -> list[str]:
    """Where a result is of another kind than the exact one and torch's, in words."""
    ours, exact, torchs = kinds
    other = safe & (ours != exact) & (ours != torchs)
    if spreads == "nan or inf":
        other &= (ours == 0) | ((exact == 0) & (torchs == 0))
    if spreads == "more":
        other &= ours == 0
    if spreads == "less":
        other &= (exact == 0) & (torchs == 0)
    if not other.any():
        return []
    at = other.nonzero()[0].tolist()
    names = ("finite", "nan", "inf", "-inf")
    pair = (names[int(kind[tuple(at)])] for kind in (ours, exact))
    return [f"result {place}: {int(other.sum())} {' for '.join(pair)}, first at {at}"]


def _shows(found: Values, exact: Values) -> bool:
    """Whether something is not finite, if anything should be."""
    is_owed = any(not x.isfinite().all() for x in exact)
    return not is_owed or any(not x.isfinite().all() for x in found)


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _finite(x: Tensor) -> Tensor:
    return _wide(x).nan_to_num(0, 0, 0) if x.is_floating_point() else x


def _ones(x: Tensor) -> Tensor:
    return torch.ones(x.shape, dtype=torch.float64)


def summed(
    dense: Callable[..., Values],
    values: Values,
    dtype: torch.dtype = torch.float32,
    result: torch.dtype | None = None,
    flushes: bool = False,
) -> dict[str, Callable[..., Values]]:
    """``error`` and ``size`` of results that are sums of products.

    Args:
        dense: the sums, linear in the magnitudes of the operands.
        values: the operands, whose shapes tell the number of terms.
        dtype: that sums are kept in.
        result: that they are rounded to at the end; None: ``dtype``.
        flushes: whether operands and results below the smallest normal number may count
            as zero.
    """
    terms = [x.max().item() for x in dense(*tuple(map(_ones, values)))]
    ends = torch.finfo(result or dtype)

    def size(*operands: Tensor) -> Values:
        return dense(*(x.abs() for x in operands))

    def error(*operands: Tensor) -> Values:
        info = torch.finfo(dtype)
        least = info.smallest_normal * info.eps
        if flushes:
            most = max(x.abs().max().item() for x in operands)
            least = info.smallest_normal * (1 + most)
        return tuple(
            (n * info.eps + ends.eps) * magnitude
            + n * least
            + ends.smallest_normal * ends.eps
            for n, magnitude in zip(terms, size(*operands), strict=True)
        )

    return {"error": error, "size": size}
