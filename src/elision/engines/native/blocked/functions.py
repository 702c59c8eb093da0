"""Operators that blocked tensors go through without a change of layout.

What lies between the products of a network: normalisation, residual sum and ReLU, which
become one pass over memory (:class:`~elision.engines.native.blocked.values.Normalised`),
pooling, concatenation, and functions of single values. Each computes what torch's
operator of that name does; what it has no way for it leaves to torch.
"""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from elision.engines.native.blocked import passes
from elision.engines.native.blocked.tensor import (
    BlockedTensor,
    Storage,
    register,
    value_of,
)
from elision.engines.native.blocked.values import (
    Biased,
    Masked,
    Normalised,
    Stored,
    Summed,
    Value,
)

_ATEN = torch.ops.aten


def _alike(a: Any, b: Any) -> bool:
    """Whether two arguments are tensors of one shape and dtype."""
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.shape == b.shape
        and a.dtype == b.dtype
    )


def _like(x: Tensor, value: Value) -> BlockedTensor:
    return BlockedTensor.of(value, x.dtype)


# --- aliases and copies ---------------------------------------------------------------


@register(_ATEN.detach.default, _ATEN.alias.default)
def _alias(x: BlockedTensor) -> BlockedTensor:
    return BlockedTensor(x.storage_, tuple(x.shape))


@register(_ATEN.clone.default)
def _clone(x: BlockedTensor, *, memory_format: Any = None) -> Any:
    if memory_format not in (None, torch.preserve_format, torch.contiguous_format):
        return NotImplemented
    return _like(x, x.storage_.value)


@register(_ATEN.slice.Tensor)
def _slice(
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    if dim % 4 != 1 or step != 1 or x.storage_.parent is not None:  # pyright: ignore
        return NotImplemented
    first, last, _ = slice(start, end).indices(x.shape[1])
    if first >= last:
        return NotImplemented
    storage = Storage(None, x.dtype, x.storage_, slice(first, last))  # pyright: ignore
    return BlockedTensor(storage, (x.shape[0], last - first, *x.shape[2:]))


# --- ReLU and sums --------------------------------------------------------------------


def _relu_of(value: Value) -> Value:
    if isinstance(value, Normalised) and value.is_open:
        return Normalised(value.source, value.affine, value.residual, relu=True)
    return Stored(torch.relu(value.blocked()), value.images)


@register(_ATEN.relu.default)
def _relu(x: BlockedTensor) -> BlockedTensor:
    return _like(x, _relu_of(x.storage_.value))


@register(_ATEN.relu_.default)
def _relu_in_place(x: BlockedTensor) -> Any:
    return x if x.storage_.write(_relu_of(x.storage_.value)) else NotImplemented


@register(_ATEN.threshold_backward.default)
def _relu_backward(g: Tensor, output: Tensor, threshold: Any) -> Any:
    if threshold != 0 or not _alike(g, output):
        return NotImplemented
    return _like(g, Masked(value_of(g), value_of(output)))


def _sum_of(a: Value, b: Value) -> Value:
    for open_, other in ((a, b), (b, a)):
        if (
            isinstance(open_, Normalised)
            and open_.is_open
            and not open_.has_residual
            and open_ is not other
        ):
            return Normalised(open_.source, open_.affine, other)
    return Summed(a, b)


@register(_ATEN.add.Tensor)
def _add(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    if alpha != 1 or not _alike(a, b):
        return NotImplemented
    return _like(a, _sum_of(value_of(a), value_of(b)))


@register(_ATEN.add_.Tensor)
def _add_in_place(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    if alpha != 1 or not _alike(a, b) or not isinstance(a, BlockedTensor):
        return NotImplemented
    written = a.storage_.write(_sum_of(a.storage_.value, value_of(b)))
    return a if written else NotImplemented


# --- batch normalisation --------------------------------------------------------------


@register(_ATEN.native_batch_norm.default)
def _batch_norm(
    x: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    given = (weight, bias, running_mean, running_var)
    if not _are_plain_floats(given) or x.numel() == 0:
        return NotImplemented
    value: Value = x.storage_.value
    # A bias that is still to be added moves the mean, and nothing else.
    source, ahead = (
        (value.source, value.bias) if isinstance(value, Biased) else (value, None)
    )
    blocked, images = source.blocked(), source.images
    if training:
        mean, variance = blocked.new_empty(x.shape[1]), blocked.new_empty(x.shape[1])
    else:
        assert running_mean is not None
        assert running_var is not None
        mean = running_mean if ahead is None else running_mean - ahead
        variance = running_var
    inverse_std, affine = passes.norm_statistics(
        *(blocked, weight, bias, mean, variance), images=images, eps=eps, train=training
    )
    output = _like(x, Normalised(source, affine))
    if not training:
        return output, mean.new_empty(0), mean.new_empty(0)
    if ahead is not None:
        mean = mean + ahead
    count = x.numel() // x.shape[1]
    _track(running_mean, mean, momentum)
    _track(running_var, variance * (count / max(1, count - 1)), momentum)
    return output, mean, inverse_std


def _track(running: Tensor | None, found: Tensor, momentum: float) -> None:
    """Move a running statistic as torch's kernel does: its version stays."""
    if running is not None:
        running.data.mul_(1 - momentum).add_(found, alpha=momentum)


@register(_ATEN.native_batch_norm_backward.default)
def _batch_norm_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor | None,
    inverse_std: Tensor | None,
    train: bool,
    eps: float,
    output_mask: list[bool],
) -> Any:
    if not _are_plain_floats((weight, running_mean, running_var)) or not _alike(g, x):
        return NotImplemented
    if train:
        assert mean is not None
        assert inverse_std is not None
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, inverse_std = running_mean, (running_var + eps).rsqrt()
    value = value_of(x)
    if isinstance(value, Biased):
        value, mean = value.source, mean - value.bias
    gradient = value_of(g)
    relu = residual = False
    y = None
    affine: Tensor | None = None
    if isinstance(gradient, Masked) and gradient.terms is not None:
        before, output = gradient.terms
        if isinstance(output, Normalised) and output.source is value:
            relu, affine, residual = True, output.affine, output.has_residual
            y = output.blocked() if residual else None
            masked, gradient = gradient, before
    if affine is None:
        slope = inverse_std if weight is None else inverse_std * weight
        affine = torch.stack([slope, torch.zeros_like(slope)])
    first, second = gradient, None
    if isinstance(gradient, Summed) and gradient.terms is not None:
        first, second = gradient.terms
    g, g_more = first.blocked(), None if second is None else second.blocked()
    dx, dresidual, dscale, dshift = passes.norm_backward(
        *(g, g_more, value.blocked(), y, affine, mean, inverse_std),
        images=value.images,
        relu=relu,
        train=train,
        residual=residual,
    )
    if dresidual is not None:
        masked.resolve(dresidual)  # pyright: ignore[reportPossiblyUnboundVariable]
    wanted_x, wanted_scale, wanted_shift = output_mask
    return (
        _like(x, Stored(dx, value.images, sums_to_zero=train)) if wanted_x else None,
        dscale if wanted_scale else None,
        dshift if wanted_shift else None,
    )


def _are_plain_floats(tensors: tuple[Tensor | None, ...]) -> bool:
    return all(
        t is None or (t.dtype == torch.float32 and not isinstance(t, BlockedTensor))
        for t in tensors
    )


# --- pooling and concatenation --------------------------------------------------------


def _pooling(
    kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[int] | None:
    def pair(value: Any) -> list[int]:
        return list(value) if len(value) == 2 else [value[0], value[0]]

    if any(d != 1 for d in dilation):
        return None
    pairs = map(pair, (kernel, stride or kernel, padding))
    return [*itertools.chain.from_iterable(pairs), int(ceil_mode)]


@register(_ATEN.max_pool2d_with_indices.default)
def _max_pool(
    x: BlockedTensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    window = _pooling(kernel, stride, padding, dilation, ceil_mode)
    if window is None:
        return NotImplemented
    value = x.storage_.value
    y = passes.max_pool_forward(value.blocked(), window)
    made = _like(x, Stored(y, value.images))
    pooling = (kernel, stride, padding, dilation, ceil_mode)
    return made, _PoolIndices(x.storage_, tuple(made.shape), pooling)


class _PoolIndices(Tensor):
    """Places of the maxima, which the gradient here finds by itself.

    They are computed, by torch, when anything reads them.
    """

    @staticmethod
    def __new__(
        cls, storage: Storage, shape: tuple[int, ...], pooling: tuple[Any, ...]
    ) -> "_PoolIndices":
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.int64)
        # The value is fixed now; the storage may be written later.
        made.value, made.dtype_, made.pooling = storage.value, storage.dtype, pooling  # pyright: ignore
        made.plain_ = None  # pyright: ignore[reportAttributeAccessIssue]
        return made

    def plain(self) -> Tensor:
        """The indices as torch gives them."""
        if self.plain_ is None:  # pyright: ignore[reportAttributeAccessIssue]
            x = Storage(self.value, self.dtype_).copy()  # pyright: ignore
            self.plain_ = _ATEN.max_pool2d_with_indices(x, *self.pooling)[1]  # pyright: ignore
        return self.plain_  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an operator of the indices themselves."""
        if func is _ATEN.detach.default:
            return args[0]
        if func is _ATEN.max_pool2d_with_indices_backward.default:
            found = _max_pool_backward(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        args, kwargs = tree_map_only(_PoolIndices, _PoolIndices.plain, (args, kwargs))
        return func(*args, **(kwargs or {}))


@register(_ATEN.max_pool2d_with_indices_backward.default)
def _max_pool_backward(
    g: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    indices: Tensor,
) -> Any:
    window = _pooling(kernel, stride, padding, dilation, ceil_mode)
    if window is None or not isinstance(indices, _PoolIndices):
        return NotImplemented
    value = value_of(x)
    dx = passes.max_pool_backward(value_of(g).blocked(), value.blocked(), window)
    value.evict()
    return _like(x, Stored(dx, value.images))


@register(_ATEN.cat.default)
def _cat(tensors: list[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    alike = all(
        t.dim() == 4
        and t.dtype == first.dtype
        and (t.shape[0], *t.shape[2:]) == (first.shape[0], *first.shape[2:])
        for t in tensors
    )
    if dim % 4 != 1 or not alike:
        return NotImplemented
    parts = [value_of(t) for t in tensors]
    joined = torch.cat([part.blocked() for part in parts], 1)
    return _like(first, Stored(joined, parts[0].images))


# --- functions of single values -------------------------------------------------------


def _elementwise(operator: Any) -> None:
    """Compute an operator of tensors of one shape, value by value, blocked."""

    @register(operator)
    def function(*args: Any, **kwargs: Any) -> Any:
        tensors = [a for a in args if isinstance(a, Tensor)]
        first = tensors[0]  # no operator below takes tensors by keyword
        if not all(_alike(first, t) for t in tensors):
            return NotImplemented
        values = [value_of(t) for t in tensors]
        found = iter([value.blocked() for value in values])
        given = [next(found) if isinstance(a, Tensor) else a for a in args]
        return _like(first, Stored(operator(*given, **kwargs), values[0].images))


for _operator in (
    _ATEN.silu.default,
    _ATEN.silu_backward.default,
    _ATEN.sigmoid.default,
    _ATEN.sigmoid_backward.default,
    _ATEN.tanh.default,
    _ATEN.tanh_backward.default,
    _ATEN.hardswish.default,
    _ATEN.hardswish_backward.default,
    _ATEN.hardtanh.default,
    _ATEN.hardtanh_backward.default,
    _ATEN.leaky_relu.default,
    _ATEN.leaky_relu_backward.default,
    _ATEN.elu.default,
    _ATEN.elu_backward.default,
    _ATEN.gelu.default,
    _ATEN.gelu_backward.default,
    _ATEN.mul.Tensor,
    _ATEN.sub.Tensor,
):
    _elementwise(_operator)
