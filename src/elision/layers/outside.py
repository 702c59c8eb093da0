"""Products that no elided layer computes, counted as torch's flop counter does.

Functions (``matmul``, ``einsum``, attention), layers that the table does not know and
whatever else multiplies in a model is seen as operators, by a dispatch mode like that of
:mod:`torch.utils.flop_counter` and with its formulas. Kernels for which it has none are
counted by the formulas here, apart.
"""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)
from torch.utils.module_tracker import ModuleTracker

from elision.layers.recomputation import OWN_PRODUCTS, is_recomputation

__all__ = ["OutsideProducts"]

_ATEN = torch.ops.aten

#: Called with the module's name, the operator's, its multiply-accumulates, and whether
#: torch's flop counter counts it.
Seen = Callable[[str, str, int, bool], None]


class OutsideProducts(TorchDispatchMode):
    """Context manager: count the products of operators outside of elided layers.

    What a backward pass computes again (activation checkpointing) is not counted, nor a
    backward pass that is itself recorded for another (``create_graph=True``).

    Args:
        model: whose modules' names are given.
        seen: called with every product.

    Example:
        >>> found = []
        >>> model = nn.LSTM(4, 8)
        >>> with OutsideProducts(model, lambda *product: found.append(product)):
        ...     _ = model(torch.ones(5, 2, 4))
        >>> sum(macs for _, _, macs, _ in found)  # 10 tokens, 32x4 and 32x8 weights
        3840
    """

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, seen: Seen) -> None:
        super().__init__()
        self._seen, self._tracker = seen, ModuleTracker()
        self._names = {name for name, _ in model.named_modules()}

    def __enter__(self) -> Self:
        self._tracker.__enter__()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._tracker.__exit__(kind, error, traceback)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and count it."""
        kwargs = kwargs or {}
        if func in _METADATA:
            return NotImplemented
        operator = getattr(func, "_overloadpacket", func)
        known, own = flop_registry.get(operator), _FORMULAS.get(operator)
        if known is None and own is None and torch.is_inference_mode_enabled():
            with self:  # autograd, which takes operators apart, is off
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        again = is_recomputation() and torch.is_grad_enabled()
        if OWN_PRODUCTS or again:
            return result
        if known is not None:
            macs = known(*args, **kwargs, out_val=result) // 2
        else:
            macs = own(*args, **kwargs) if own is not None else 0
        if macs:
            name = getattr(operator, "__name__", str(operator))
            self._seen(self._module(), name, macs, known is not None)
        return result

    def _module(self) -> str:
        """Name of the innermost module that runs, forward or backward."""
        longest = max(self._tracker.parents - {"Global"}, key=len, default="")
        while longest not in self._names and longest:
            longest = longest.partition(".")[2]  # the model's class, or a wrapper's
        return longest


#: Operators that ask for a tensor's form.
_METADATA = {
    _ATEN.sym_is_contiguous.default,
    _ATEN.is_contiguous.default,
    _ATEN.is_contiguous.memory_format,
    _ATEN.is_strides_like_format.default,
    _ATEN.is_non_overlapping_and_dense.default,
    _ATEN.size.default,
    _ATEN.sym_size.default,
    _ATEN.stride.default,
    _ATEN.sym_stride.default,
    _ATEN.storage_offset.default,
    _ATEN.sym_storage_offset.default,
    _ATEN.numel.default,
    _ATEN.sym_numel.default,
    _ATEN.dim.default,
    torch.ops.prim.layout.default,
}

# --- kernels without a formula in torch: multiply-accumulates -------------------------


def _attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape) // 2


def _attention_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape) // 2


def _recurrent(input: Tensor, weights: list[Tensor], batch_sizes: list[int]) -> int:
    """Every weight matrix meets every token once."""
    tokens = sum(batch_sizes) or math.prod(input.shape[:-1])
    return tokens * sum(w.numel() for w in weights if w.dim() == 2)


def _mkldnn_rnn(input: Tensor, *args: Any, **kwargs: Any) -> int:
    return _recurrent(input, list(args[:4]), args[7])


def _mkldnn_rnn_backward(input: Tensor, *args: Any, **kwargs: Any) -> int:
    return 2 * _recurrent(input, list(args[:4]), args[19])


def _cudnn_rnn(input: Tensor, weights: list[Tensor], *args: Any, **kwargs: Any) -> int:
    return _recurrent(input, weights, args[12])


def _cudnn_rnn_backward(
    input: Tensor, weights: list[Tensor], *args: Any, **kwargs: Any
) -> int:
    *_, wanted_weights = args[-1]
    return (1 + wanted_weights) * _recurrent(input, weights, args[16])


def _fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    width: int,
    heads: int,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    *args: Any,
    **kwargs: Any,
) -> int:
    if q.is_nested:
        return 0
    scores = 2 * q.shape[0] * q.shape[1] * k.shape[1] * width
    return q.shape[:2].numel() * (in_weight.numel() + out_weight.numel()) + scores


_FORMULAS: dict[Any, Callable[..., int]] = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _ATEN.mkldnn_rnn_layer: _mkldnn_rnn,
    _ATEN.mkldnn_rnn_layer_backward: _mkldnn_rnn_backward,
    _ATEN._cudnn_rnn: _cudnn_rnn,
    _ATEN._cudnn_rnn_backward: _cudnn_rnn_backward,
    _ATEN._native_multi_head_attention: _fused_attention,
}
