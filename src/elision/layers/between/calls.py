"""The functions of torch that compute a tanh, a sigmoid, a SiLU, a GELU or a softmax.

:func:`adapters` maps each to one that computes the replacement and takes the same
arguments. Functions in :data:`HIDDEN` hold one of these inside and stay as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.engines.native.blocked.tensor import as_plain
from elision.functional import Replacement
from elision.nn.attention import attention, multi_head
from elision.nn.over_time import Gates

__all__ = ["HIDDEN", "Adapter", "adapters", "name_of"]

#: Computes a call of torch's function by a replacement.
Adapter = Callable[..., Any]

_ATEN_NN: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]

#: Functions of one tensor, by what they compute; those that end in an underscore write.
_UNARY: dict[str, tuple[Any, ...]] = {
    "tanh": (torch.tanh, Tensor.tanh, torch.tanh_, Tensor.tanh_),
    "sigmoid": (
        *(torch.sigmoid, Tensor.sigmoid, torch.sigmoid_, Tensor.sigmoid_),
        torch.special.expit,
    ),
    "silu": (F.silu, _ATEN_NN.silu, _ATEN_NN.silu_),
    "gelu": (F.gelu,),
}

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
_LOG_SOFTMAX = (
    *(F.log_softmax, torch.log_softmax, Tensor.log_softmax),
    torch.special.log_softmax,
)

#: Functions that compute one of the replaced inside, where nothing can be put in its place.
HIDDEN: dict[Any, str] = {
    F.glu: "sigmoid",
    F.logsigmoid: "sigmoid",
    F.binary_cross_entropy_with_logits: "sigmoid",
    F.mish: "tanh",
    F.tanhshrink: "tanh",
    F.gumbel_softmax: "softmax",
    F.cross_entropy: "softmax",
    torch._native_multi_head_attention: "softmax",  # pyright: ignore[reportPrivateImportUsage]
    torch._transformer_encoder_layer_fwd: "softmax",  # pyright: ignore[reportPrivateImportUsage]
}


def adapters(
    replacements: Mapping[str, Replacement], met: Callable[[str, Any], None]
) -> dict[Any, Adapter]:
    """Torch's functions that are replaced, and what computes them instead.

    Args:
        replacements: by what they replace.
        met: called with what is replaced, and the function, at every call.
    """
    made: dict[Any, Adapter] = {}

    def add(kinds: str, func: Any, compute: Adapter) -> None:
        def adapted(*args: Any, **kwargs: Any) -> Any:
            for kind in kinds.split():
                met(kind, func)
            args = tuple(as_plain(a) if isinstance(a, Tensor) else a for a in args)
            return compute(*args, **kwargs)

        made[func] = adapted

    for kind, functions in _UNARY.items():
        if kind in replacements:
            for func in functions:
                add(kind, func, _unary(replacements[kind].call, name_of(func)))
    if "softmax" in replacements:
        found = replacements["softmax"]
        for func in _SOFTMAX:
            add("softmax", func, _softmax(found.call))
        add("softmax", F.softmin, _softmax(lambda x, dim: found.call(-x, dim=dim)))
        for func in _LOG_SOFTMAX:
            add("softmax", func, _softmax(found.log_call))
        softmax = _softmax(found.call)
        attend = _attention(found.call)
        add("softmax", F.scaled_dot_product_attention, attend)
        whole = multi_head(softmax, attend)
        add("softmax", F.multi_head_attention_forward, whole)
    _add_recurrent(replacements, add)
    return made


def _add_recurrent(replacements: Mapping[str, Replacement], add: Any) -> None:
    kinds = [kind for kind in ("sigmoid", "tanh") if kind in replacements]
    if not kinds:
        return
    sigmoid, tanh = (
        replacements[kind].call if kind in replacements else exact
        for kind, exact in (("sigmoid", torch.sigmoid), ("tanh", torch.tanh))
    )
    gates = Gates(sigmoid, tanh)
    gated: list[tuple[Any, Adapter]] = [
        (torch.lstm, gates.lstm),
        (torch.gru, gates.gru),
        (torch.lstm_cell, gates.lstm_cell),
        (torch.gru_cell, gates.gru_cell),
    ]
    for func, compute in gated:
        add(" ".join(kinds), func, compute)
    if "tanh" in replacements:
        add("tanh", torch.rnn_tanh, gates.rnn)
        add("tanh", torch.rnn_tanh_cell, gates.rnn_cell)


def _unary(call: Callable[[Tensor], Tensor], name: str) -> Adapter:
    always = name.endswith("_")

    def compute(
        input: Tensor,
        inplace: bool = False,
        *,
        out: Tensor | None = None,
        approximate: str = "none",
    ) -> Tensor:
        del approximate  # of GELU, which is another one now
        if inplace or always:  # the gradient may need what is written over
            return input.copy_(call(input.clone()))
        return call(input) if out is None else out.copy_(call(input))

    return compute


def _softmax(call: Callable[..., Tensor]) -> Adapter:
    def compute(
        input: Tensor,
        dim: int | None = None,
        *more: Any,
        dtype: torch.dtype | None = None,
        out: Tensor | None = None,
        _stacklevel: int = 3,
    ) -> Tensor:
        del _stacklevel  # of a warning
        for value in more:  # the type, or how many callers a warning skips
            dtype = value if isinstance(value, torch.dtype) else dtype
        if dim is None:
            dim = _default_dim(input.dim())
        x = input if dtype is None else input.to(dtype)
        y = call(x, dim=dim)
        return y if out is None else out.copy_(y)

    return compute


def _default_dim(dims: int) -> int:
    """The dimension that torch's functional softmax takes where none is given."""
    return 0 if dims in (0, 1, 3) else 1


def _attention(call: Callable[..., Tensor]) -> Adapter:
    def compute(*args: Any, **kwargs: Any) -> Tensor:
        return attention(call, *args, **kwargs)

    return compute


def name_of(func: Any) -> str:
    """A function's name as a program writes it, ``tanh`` or ``lstm``."""
    return getattr(func, "__name__", str(func))
