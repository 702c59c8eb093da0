"""The nearest point of a small grid with a free scale: binary, ternary, uniform weights."""

from abc import ABC
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from elision.common.checks import integer, one_of
from elision.formats.projections import binary, ternary, uniform
from elision.operands.base import State, Transform

__all__ = ["FLOAT_BITS", "Project", "QuantisedWeight", "TanhLevels"]

#: The width that stands for float values (an own choice).
FLOAT_BITS = 32


class QuantisedWeight(Transform, ABC):
    """Base of the transforms by which training keeps float weights and computes with others.

    A rule of quantised training (:class:`elision.topology.Blended`) acts on the weights
    that the forward product reads through one of these.

    Example:
        >>> from elision.operands import LearnedStep
        >>> isinstance(Project(1), QuantisedWeight), issubclass(LearnedStep, QuantisedWeight)
        (True, True)
    """

    def check_weight(self, weight: Tensor) -> None:
        """Raise ValueError where no scale fits a weight; the caller names the layer."""
        if not bool(weight.any()):
            raise ValueError(
                f"all {weight.numel()} weights are zero, so '{self}' has no scale: give "
                "the layer values, or leave it dense"
            )


@dataclass(frozen=True)
class Project(QuantisedWeight):
    """Weights as ``s·c``, the codes ``c`` on a grid of ``bits`` bits, one scale a group.

    =====  =================  ========================================================
    bits   codes              scale
    =====  =================  ========================================================
    1      −1, 1              mean (or median) magnitude; zero counts as positive
    2      −1, 0, 1           mean magnitude of what is kept
    3..16  −m..m              by ``fit`` of :func:`elision.formats.projections.uniform`,
                              ``m = 2^(b−1) − 1``
    32     the weights        none: they stay float
    =====  =================  ========================================================

    The gradient passes unchanged (straight-through), or is that of XNOR-Net.

    Attributes:
        bits: width of a code, in [1, 16], or 32.
        group: what shares a scale: ``"layer"``, ``"channel"`` (an output channel), or
            ``"none"``: the codes themselves, of 1 or 2 bits.
        statistic: scale of binary weights: ``"mean"`` minimises ``‖w − s·c‖``,
            ``"median"`` is an option of the published code of BCGD.
        threshold: of ternary weights: ``"twn"`` or ``"exact"``, see
            :func:`elision.formats.projections.ternary`.
        fit: of 3 bits and more.
        gradient: ``"straight"``; or ``"scaled"``, for 1 bit: the gradient times
            ``1/n + s·1[|w| <= 1]``, ``n`` the weights that share the scale ``s``
            (Rastegari et al., XNOR-Net, section 3.1).

    Example:
        >>> Project(1)(torch.tensor([[0.3, -0.8]]), [], True)
        tensor([[ 0.5500, -0.5500]])
        >>> Project(2)(torch.tensor([[3.0, -1.0, 0.5, -4.0]]), [], True).tolist()
        [[3.5, 0.0, 0.0, -3.5]]
    """

    bits: int = 1
    group: Literal["layer", "channel", "none"] = "layer"
    statistic: Literal["mean", "median"] = "mean"
    threshold: Literal["twn", "exact"] = "twn"
    fit: Literal["once", "least-squares", "largest"] = "once"
    gradient: Literal["straight", "scaled"] = "straight"

    @property
    def own_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True for the gradient of XNOR-Net."""
        return self.gradient == "scaled"

    @property
    def sparsifies(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True for ternary weights, of which nearly half are zero."""
        return self.bits == 2

    def check(self) -> None:
        if self.bits != FLOAT_BITS:
            integer("Project", "bits", self.bits, "[1, 16]")
        one_of("Project", "group", self.group, ("layer", "channel", "none"))
        one_of("Project", "statistic", self.statistic, ("mean", "median"))
        one_of("Project", "threshold", self.threshold, ("twn", "exact"))
        one_of("Project", "fit", self.fit, ("once", "least-squares", "largest"))
        one_of("Project", "gradient", self.gradient, ("straight", "scaled"))
        if self.gradient == "scaled" and self.bits != 1:
            raise ValueError(
                f"Project(bits={self.bits}, gradient='scaled'): the gradient of XNOR-Net is "
                "that of 1 bit"
            )
        if self.group == "none" and self.bits > 2:
            raise ValueError(
                f"Project(bits={self.bits}, group='none'): codes of 3 bits and more need "
                "a scale; group is 'layer' or 'channel'"
            )

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        if self.bits == FLOAT_BITS:
            return x
        codes, scale = self._projected(self._grouped(x))
        if self.group == "none":
            return codes.view(x.shape)
        return (codes * scale).view(x.shape)

    def differentiable(self, x: Tensor, state: State, training: bool) -> Tensor:
        result = super().differentiable(x, state, training)
        if not self.own_gradient:
            return result
        scale = self._projected(self._grouped(x.detach()))[1]
        each = x.numel() // max(1, scale.numel())
        shape = (-1, *[1] * (x.dim() - 1))
        factor = 1 / max(1, each) + scale.view(shape) * (x.detach().abs() <= 1)
        return _ScaledGradient.apply(result, factor)  # pyright: ignore[reportReturnType]

    def _grouped(self, x: Tensor) -> Tensor:
        """The values that share a scale, ``(G, n)``."""
        if self.group == "channel" and x.dim() > 1:
            return x.flatten(1)
        return x.reshape(1, -1)

    def _projected(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``(G, n)`` and scales ``(G, 1)``."""
        if self.bits == 1:
            codes, scale = binary(groups)
            if self.statistic == "median":
                scale = groups.abs().median(1, keepdim=True).values
            return codes, scale
        if self.bits == 2:
            return ternary(groups, self.threshold)
        return uniform(groups, self.bits, self.fit)

    @property
    def number_format(self) -> str:
        """That of the codes; the scale is the result's."""
        if self.bits == FLOAT_BITS:
            return super().number_format
        return {1: "binary", 2: "ternary"}.get(self.bits, f"int{self.bits}")

    def __str__(self) -> str:
        if self.bits == FLOAT_BITS:
            return "float weights"
        words = {1: "binary", 2: "ternary"}.get(self.bits, f"{self.bits} bits")
        scale = {"layer": "layer", "channel": "channel"}.get(self.group)
        return f"{words} by {scale}" if scale else words


@dataclass(frozen=True)
class TanhLevels(QuantisedWeight):
    """Weights squeezed by tanh into [−1, 1], then rounded to ``2^b`` levels (DoReFa-Net).

    With ``t = tanh(w)`` and ``L = 2^b − 1``::

        r = t / (2·max|t|) + 1/2        w_q = 2·round(L·r)/L − 1

    The gradient is that of the tanh and of the maximum; rounding passes it unchanged.

    Attributes:
        bits: width of a code, in [2, 8]; of 1 bit, DoReFa-Net's weights are
            :class:`Project`'s.

    Source: Zhou et al., DoReFa-Net, arXiv 1606.06160, equation 9.

    Example:
        >>> TanhLevels(2)(torch.tensor([[2.0, 0.1, -2.0]]), [], True).tolist()
        [[1.0, 0.3333333730697632, -1.0]]
    """

    bits: int = 2

    own_gradient = True

    def check(self) -> None:
        integer("TanhLevels", "bits", self.bits, "[2, 8]")

    def differentiable(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        t = torch.tanh(x)
        largest = t.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
        levels = 2**self.bits - 1
        return _rounded((t / (2 * largest) + 0.5) * levels) * (2 / levels) - 1

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        with torch.no_grad():
            return self.differentiable(x, state, training)

    @property
    def number_format(self) -> str:
        """The numbers of the levels, from 0; half of their range is taken off the sum."""
        return f"uint{self.bits}"

    def __str__(self) -> str:
        return f"{2**self.bits} levels of tanh"


class _ScaledGradient(torch.autograd.Function):
    """The same values; the gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad * ctx.saved_tensors[0], None


class _Round(torch.autograd.Function):
    """To the nearest whole number; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        return grad


def _rounded(x: Tensor) -> Tensor:
    return _Round.apply(x)  # pyright: ignore[reportReturnType]
