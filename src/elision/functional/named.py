"""Replacements by name: what may stand for tanh, sigmoid, SiLU, GELU and softmax.

``make("softmax", "taylor-softmax:order=4")`` reads the grammar of
:mod:`elision.common.specs`; a function of one's own is taken as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.common import specs
from elision.common.names import lookup
from elision.functional.baselines import (
    hard_sigmoid,
    hard_tanh,
    plan_sigmoid,
    plan_tanh,
    rational_sigmoid,
    rational_tanh,
)
from elision.functional.softmax import log_taylor_softmax, taylor_softmax
from elision.functional.tanh import k_gelu, k_sigmoid, k_silu, k_tanh

__all__ = ["FUNCTIONS", "Replacement", "make"]

#: What computes a replaced function: of a tensor; for a softmax also ``dim=``.
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Replacement:
    """A function that stands for another between the layers.

    Attributes:
        kind: what it stands for, a key of :data:`FUNCTIONS`.
        name: its name, with parameters.
        call: ``call(x)``, or ``call(x, dim=...)`` for a softmax.
        log: logarithm of a softmax, in the same form; None: ``call(...).log()``.

    Example:
        >>> found = make("tanh", "k-tanh")
        >>> found.name, found.call(torch.tensor(9.0))
        ('k-tanh', tensor(1.))
    """

    kind: str
    name: str
    call: Function
    log: Function | None = None

    def log_call(self, x: Tensor, dim: int) -> Tensor:
        """Logarithm of a softmax."""
        if self.log is not None:
            return self.log(x, dim=dim)
        return self.call(x, dim=dim).log()


def _one(function: Function) -> Callable[[], tuple[Function, None]]:
    """Maker of a function without parameters."""
    return lambda: (function, None)


def _rational_tanh(terms: int = 3) -> tuple[Function, None]:
    return partial(rational_tanh, terms=terms), None


def _rational_sigmoid(terms: int = 3) -> tuple[Function, None]:
    return partial(rational_sigmoid, terms=terms), None


def _taylor(
    order: int = 2, backward: str = "finite", check: bool = True
) -> tuple[Function, Function]:
    given: dict[str, Any] = {"order": order, "backward": backward, "check": check}
    return partial(taylor_softmax, **given), partial(log_taylor_softmax, **given)


def quick_gelu(x: Tensor) -> Tensor:
    """``x · σ(1.702 x)``, the sigmoid form of GELU (Hendrycks, Gimpel, arXiv 1606.08415)."""
    return x * torch.sigmoid(1.702 * x)


#: Function -> names of what may stand for it -> what makes that from its parameters.
FUNCTIONS: dict[str, dict[str, Callable[..., tuple[Function, Function | None]]]] = {
    "tanh": {
        "k-tanh": _one(k_tanh),
        "rational-tanh": _rational_tanh,
        "plan-tanh": _one(plan_tanh),
        "hard-tanh": _one(hard_tanh),
    },
    "sigmoid": {
        "k-sigmoid": _one(k_sigmoid),
        "rational-sigmoid": _rational_sigmoid,
        "plan-sigmoid": _one(plan_sigmoid),
        "hard-sigmoid": _one(hard_sigmoid),
    },
    "silu": {
        "k-silu": _one(k_silu),
        "k-swish": _one(k_silu),
        "hard-swish": _one(F.hardswish),  # MobileNetV3, arXiv 1905.02244
    },
    "gelu": {
        "k-gelu": _one(k_gelu),
        "tanh-gelu": _one(partial(F.gelu, approximate="tanh")),
        "sigmoid-gelu": _one(quick_gelu),
    },
    "softmax": {"taylor-softmax": _taylor},
}


def make(kind: str, given: str | Function) -> Replacement:
    """The replacement that a person names.

    Args:
        kind: key of :data:`FUNCTIONS`.
        given: a name of that kind, with parameters; or a function of a tensor, which for
            a softmax takes ``dim=`` and gives 0 where a logit is minus infinity.

    Raises:
        ValueError: unknown kind, name or parameter (lists the known ones), or a function
            that changes the shape.
        TypeError: neither text nor a function, or a function that takes other arguments.

    Example:
        >>> make("softmax", "taylor-softmax:order=4").name
        'taylor-softmax:order=4'
    """
    known = lookup("function to replace", kind, FUNCTIONS)
    if isinstance(given, str):
        call, log = specs.build(kind, given, known)
        found = Replacement(kind, given, call, log)
    elif callable(given):
        name = getattr(given, "__name__", None) or type(given).__name__
        found = Replacement(kind, name, given)
    else:
        raise TypeError(
            f"functions[{kind!r}] must be a name or a function, got {type(given).__name__}"
        )
    _try(found)
    return found


def _try(found: Replacement) -> None:
    """One call on zeros, so that what cannot work is refused now."""
    zeros = torch.zeros(2, 3, device="cpu")
    arguments = {"dim": 1} if found.kind == "softmax" else {}
    try:
        result = found.call(zeros, **arguments)
    except TypeError as error:
        raise TypeError(f"functions[{found.kind!r}]: {found.name}: {error}") from error
    if not isinstance(result, Tensor) or result.shape != zeros.shape:
        got = (
            tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        )
        raise ValueError(
            f"functions[{found.kind!r}]: {found.name} must give a tensor of its argument's "
            f"shape {tuple(zeros.shape)}, got {got}"
        )
