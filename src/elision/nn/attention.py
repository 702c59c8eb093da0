"""Attention whose softmax is a function of one's own.

``scaled_dot_product_attention`` is written out as its documentation defines it;
``multi_head_attention_forward`` is torch's own body, in which the names ``softmax`` and
``scaled_dot_product_attention`` are bound anew, so that projections, masks and options stay
whatever the installed torch makes of them.
"""

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attention", "multi_head", "rebound"]

#: ``softmax(scores, dim=...)``.
Softmax = Callable[..., Tensor]

#: ``x·wᵀ`` over the last axes, of a product by its name: ``"qk"`` or ``"pv"``.
Multiply = Callable[[str, Tensor, Tensor], Tensor]


def _multiply(name: str, x: Tensor, w: Tensor) -> Tensor:
    del name
    return x @ w.mT


def attention(
    softmax: Softmax,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    multiply: Multiply = _multiply,
) -> Tensor:
    """``softmax(Q·Kᵀ·scale + mask)·V``, of shapes and arguments of torch's function.

    ``multiply`` computes the two products.

    A query that no key is open to gets zeros, as from torch.

    Example:
        >>> q = torch.randn(2, 3, 5, 4)
        >>> expected = F.scaled_dot_product_attention(q, q, q)
        >>> torch.allclose(attention(torch.softmax, q, q, q), expected, atol=1e-6)
        True
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = multiply("qk", query * scale, key)
    if is_causal:
        shape = scores.shape[-2:]
        attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        weights = softmax(scores, dim=-1)
    else:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        else:
            scores = scores + attn_mask
        closed = (scores == -torch.inf).all(-1, keepdim=True)
        weights = softmax(scores.masked_fill(closed, 0.0), dim=-1)
        weights = weights.masked_fill(closed, 0.0)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    return multiply("pv", weights.to(value.dtype), value.mT)


def multi_head(softmax: Softmax, attend: Callable[..., Any]) -> Callable[..., Any]:
    """``F.multi_head_attention_forward`` with another softmax and another attention."""
    return rebound({"softmax": softmax, "scaled_dot_product_attention": attend})


def rebound(names: dict[str, Any]) -> Callable[..., Any]:
    """Torch's own body of ``multi_head_attention_forward``, with some names bound anew.

    No function mode is asked about the whole of it, only about what it calls.
    """
    body: Any = F.multi_head_attention_forward
    names = vars(F) | {"has_torch_function": _never} | names
    made = FunctionType(body.__code__, names, body.__name__, body.__defaults__)
    made.__kwdefaults__ = body.__kwdefaults__
    # Dynamo looks names up in the module that a function says it is from.
    return torch._disable_dynamo(made)  # pyright: ignore[reportPrivateImportUsage]


def _never(tensors: Any) -> bool:
    """For ``has_torch_function``: the mode has been asked already."""
    del tensors
    return False
