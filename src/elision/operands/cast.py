"""Rounding to a number format."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from elision.common.checks import count, integer, one_of
from elision.common.seeds import seed_at, stream_of
from elision.formats import (
    Coded,
    Floating,
    Format,
    Grouping,
    Rounding,
    Scaled,
    fast_round,
    format_named,
)
from elision.formats.scales import Largest, Power
from elision.operands.base import State, Transform
from elision.operands.delayed import FIRST_SCALE, follow, largest_magnitude

__all__ = ["Cast", "reads_axis"]

Scale = Literal["none", "tensor", "channel", "power-of-two", "delayed"]


#: Most maxima that a scale remembers (an own choice; Transformer Engine's is 1024).
_MOST_HISTORY = 2**20


@dataclass(frozen=True)
class Cast(Transform):
    """Round every value to a narrower format; the product then reads these values.

    The values are exactly the format's; the multiplication runs in the layer's dtype, so
    this is an emulation of a narrow-operand, wide-accumulator product and makes nothing
    faster. NaN stays NaN.

    A format with shared scales (``mxfp8``, ``dfp16``, ``int8``) brings its scale along.
    Any other may be given one. With ``F`` the largest value of the format and ``a`` the
    largest finite magnitude, ``x`` becomes ``s·round(x/s)``:

    ==================  =============================================================
    ``"none"``          ``s = 1``
    ``"tensor"``        ``s = a/F``, ``a`` of the whole tensor
    ``"channel"``       ``s = a/F``, ``a`` of each slice of ``axis``
    ``"power-of-two"``  ``s = 2^(⌊log2 a⌋ − ⌊log2 F⌋)``, as the blocks of MX have it
    ``"delayed"``       ``s = 2^margin·a/F``, ``a`` of earlier steps
    ==================  =============================================================

    Delayed scaling (Transformer Engine) keeps the maxima of the last ``history`` steps of
    training in the layer's state; the scale of a step follows from those before it, that
    of the first is 1. Magnitudes that are not finite do not enter; there, the published
    code keeps its scale until they have left the history.

    Stochastic rounding draws anew in every step of training, in every layer and operand:
    from ``seed``, a number that the layer's name gives and a counter of steps, all state of
    the layer. Outside of training values are rounded to nearest (an own choice).

    Attributes:
        format: a number format, see :func:`elision.formats.format_named`.
        scale: see above; ``"none"`` for a format with scales of its own.
        axis: dimension along which a format's blocks run, or whose slices have a scale
            each. Nothing else reads it.
        rounding: ``"nearest"`` (ties to even), ``"zero"`` or ``"stochastic"``.
        overflow: ``"saturate"``: values beyond the range, infinities included, become the
            largest value; ``"ieee"``: they become infinite, or NaN where the format has
            no infinity, so that a loss scaler sees them.
        history: steps that delayed scaling looks back (published: 1024).
        amax: ``"max"`` of the history, or its ``"most-recent"`` value.
        margin: powers of two that delayed scaling leaves free.
        seed: of stochastic rounding.

    Example:
        >>> Cast("fp8-e4m3")(torch.tensor([0.3, 1000.0]), [], True).tolist()
        [0.3125, 448.0]
        >>> Cast("fp16", overflow="ieee")(torch.tensor([1e5]), [], True).tolist()
        [inf]
    """

    format: str
    scale: Scale = "none"
    axis: int = 1
    rounding: Rounding = "nearest"
    overflow: Literal["saturate", "ieee"] = "saturate"
    history: int = 1024
    amax: Literal["max", "most-recent"] = "max"
    margin: int = 0
    seed: int = 0

    def check(self) -> None:
        format = format_named(self.format)
        one_of("Cast", "scale", self.scale, get_args(Scale))
        one_of("Cast", "rounding", self.rounding, get_args(Rounding))
        one_of("Cast", "overflow", self.overflow, ("saturate", "ieee"))
        one_of("Cast", "amax", self.amax, ("max", "most-recent"))
        count("Cast", "history", self.history, most=_MOST_HISTORY)
        integer("Cast", "margin", self.margin, "[-126, 126]")
        integer("Cast", "seed", self.seed, ">= 0")
        # Kept beside the fields: what every call asks for.
        vars(self)["_made"] = self._scaled(format)

    def _scaled(self, format: Format) -> Format:
        """The format with this cast's overflow and scale."""
        if not isinstance(format, Coded):
            if self.scale != "none" or self.overflow != "saturate":
                raise ValueError(
                    f"Cast({self.format!r}): the format has scales of its own and no value "
                    "beyond its range; leave scale at 'none' and overflow at 'saturate'"
                )
            return format
        if self.overflow == "saturate":
            format = format.saturating
        elif isinstance(format, Floating):
            format = replace(format, saturates=False)
        if self.scale in ("none", "delayed"):
            return format
        over = Grouping("channel" if self.scale == "channel" else "tensor")
        if self.scale != "power-of-two":
            return Scaled(self.format, format, Largest(), over)
        lead = int(torch.tensor(format.largest).frexp().exponent) - 1
        return Scaled(self.format, format, Power(lead), over)

    @property
    def reads_axes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if blocks or slices have scales."""
        return reads_axis(self)

    @property
    def pointwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if neither a scale nor a random number has a say."""
        return isinstance(self._format, Coded) and not self.state_names

    def initial_state(self) -> State:
        state: State = {}
        if self.rounding == "stochastic":
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["stream"] = torch.zeros((), dtype=torch.int64)
        if self.scale == "delayed":
            state["history"] = torch.zeros(self.history)
            state["scaling"] = torch.full((), FIRST_SCALE)
        return state

    def state_at(self, place: str) -> State:
        state = self.initial_state()
        if "stream" in state:
            state["stream"].fill_(stream_of(place, self.seed))
        return state

    @property
    def number_format(self) -> str:
        """The format itself."""
        return self.format

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        if not x.numel():
            return x
        rounding, seed = self.rounding, 0
        if rounding == "stochastic":
            if training:
                step = int(state["step"].item())
                seed = seed_at(int(state["stream"].item()), step)
                state["step"].add_(1)
            else:
                rounding = "nearest"
        if self.scale == "delayed":
            return self._delayed(x, rounding, seed, state, training)
        return fast_round(self._format, x, rounding, seed, self.axis)

    def _delayed(
        self, x: Tensor, rounding: Rounding, seed: int, state: State, training: bool
    ) -> Tensor:
        scale = state["scaling"].item()
        wide = x if x.dtype.itemsize >= 4 else x.float()
        rounded = fast_round(self._format, wide * scale, rounding, seed)
        if training:
            follow(
                state["history"],
                state["scaling"],
                largest_magnitude(x),
                self._format.largest,
                self.margin,
                self.amax,
            )
        return rounded.div_(scale).to(x.dtype)

    @property
    def _format(self) -> Format:
        """The format with this cast's overflow and scale."""
        return vars(self)["_made"]

    def __str__(self) -> str:
        """The format, and what is not said by its name."""
        words = {"none": "", "tensor": " scaled"}.get(
            self.scale, f" scaled ({self.scale})"
        )
        if reads_axis(self):
            words += f" along axis {self.axis}"
        if self.rounding != "nearest":
            words += f", {'towards zero' if self.rounding == 'zero' else self.rounding}"
        return self.format + words


def reads_axis(cast: Cast) -> bool:
    """Whether the result of a cast depends on its axis.

    Example:
        >>> reads_axis(Cast("mxfp8")), reads_axis(Cast("dfp16"))
        (True, False)
    """
    format = cast._format
    return isinstance(format, Scaled) and format.grouping.over != "tensor"
