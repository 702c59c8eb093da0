"""Layers in the blocked layout, as torch custom operators with gradients.

Being custom operators with fake implementations they are single nodes to
``torch.compile``.
"""

from typing import Any

import torch
from torch import Tensor

from elision.engines.native import library
from elision.engines.native.blocked import passes
from elision.engines.native.blocked.layer_lists import above, lists_of
from elision.products import Conv2dGeometry

__all__ = [
    "conv2d",
    "from_blocked",
    "level",
    "max_pool",
    "norm",
    "to_blocked",
]

_LANES = library.LANES


def _geometry(
    x: Tensor, weight: Tensor, images: int, window: list[int]
) -> Conv2dGeometry:
    """Geometry of a layer; window: stride, padding, dilation, pairs each."""
    channels, height, width = x.shape[1:4]
    return Conv2dGeometry(
        images,
        channels,
        height,
        width,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        (window[0], window[1]),
        (window[2], window[3]),
        (window[4], window[5]),
        1,
    )


@torch.library.custom_op("elision::to_blocked", mutates_args=())
def to_blocked(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` to blocked float32 ``(ceil(N/16), C, H, W, 16)``."""
    return library.to_blocked(x)[0]


@to_blocked.register_fake
def _(x: Tensor) -> Tensor:
    shape = (-(-x.shape[0] // _LANES), *x.shape[1:], _LANES)
    return x.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("elision::from_blocked", mutates_args=())
def from_blocked(x: Tensor, images: int) -> Tensor:
    """Blocked to ``(images, C, H, W)``; float32."""
    return library.from_blocked(x, images)


@from_blocked.register_fake
def _(x: Tensor, images: int) -> Tensor:
    return x.new_empty((images, *x.shape[1:-1]))


def _save_images(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.images = inputs[0].shape[0]


to_blocked.register_autograd(
    lambda ctx, g: from_blocked(g, ctx.images), setup_context=_save_images
)
from_blocked.register_autograd(lambda ctx, g: (to_blocked(g), None))


@torch.library.custom_op("elision::level", mutates_args=())
def level(x: Tensor, keep: float, samples: int, images: int) -> Tensor:
    """The ``ceil(keep·n)``-th largest magnitude of ``n`` values, a scalar tensor.

    Args:
        x: of any floating type up to float32.
        keep: in (0, 1].
        samples: values that it is estimated from; 0 for the exact one.
        images: batch size of a blocked ``x``; 0 if it is not blocked.
    """
    if images % _LANES:  # lanes behind the last image are no part of the tensor
        x = library.from_blocked(x, images)
    above = library.threshold(x, keep, samples or None)
    found = torch.tensor(above).clamp_(min=0)
    return torch.nextafter(found, torch.tensor(torch.inf)) if above >= 0 else found


@level.register_fake
def _(x, keep, samples, images):
    return x.new_empty((), dtype=torch.float32)


@torch.library.custom_op("elision::blocked_conv2d", mutates_args=())
def conv2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    asked: Tensor | None,
    weight_level: Tensor | None,
    input_level: Tensor | None,
    source: Tensor | None,
    line: Tensor | None,
    relu: bool,
    halves: bool,
    plain: bool,
    images: int,
    window: list[int],
    layer: int,
) -> Tensor:
    """Convolution of a blocked input with a sparse weight.

    Forward and input gradient read the weights under ``mask``, or those that reach
    ``weight_level``. The weight gradient is exact at the mask and zero elsewhere; or,
    without a mask or where more is asked for, dense, of the input that reaches
    ``input_level``.

    Args:
        x: blocked input.
        weight: ``(K, C, R, S)``.
        mask: same shape, zero where a weight is out; None for no mask.
        asked: scalar, the share of the weight gradient that is asked for under a mask;
            below 1 it is the mask's. None: the mask's.
        weight_level: scalar, from :func:`level`; None: all that is not zero.
        input_level: the same for the input.
        source: what :func:`norm` made ``x`` of, without a residual. It is kept for the
            backward pass in the place of ``x``, which is made of it again there. None:
            ``x`` is kept.
        line: what :func:`norm` returned with ``x``; None without a source.
        relu: whether it applied a ReLU.
        halves: whether products with the weight, or at the mask, are of halves (see
            :class:`library.Weights`).
        plain: whether input and output are ``(N, C, H, W)``, for a layer that has no
            blocked neighbour: what is blocked in between is then nobody's to keep.
        images: batch size.
        window: stride, padding and dilation, (vertical, horizontal) each.
        layer: from :func:`layer_lists.new_layer`.
    """
    geometry = _geometry(x, weight, images, window)
    read = library.to_blocked(x, slot=0)[0] if plain else x.contiguous()
    asks = (geometry, weight, mask, weight_level, halves)
    with lists_of(layer).made(*asks, input_grad=False) as weights:
        y = weights.forward(read, slot=1 if plain else None)
    return library.from_blocked(y, images) if plain else y


@conv2d.register_fake
def _(x, weight, *rest):
    plain, images, window, _ = rest[-4:]
    geometry = _geometry(x, weight, images, window)
    shape = (x.shape[0], weight.shape[0], geometry.out_height, geometry.out_width)
    return weight.new_empty(shape if plain else (*shape, _LANES))


@torch.library.custom_op("elision::blocked_conv2d_backward", mutates_args=())
def conv2d_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    asked: Tensor | None,
    weight_level: Tensor | None,
    input_level: Tensor | None,
    line: Tensor | None,
    relu: bool,
    halves: bool,
    plain: bool,
    images: int,
    window: list[int],
    layer: int,
    wants_dx: bool,
    wants_dw: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`conv2d`; empty where they are not wanted.

    With ``line``, ``x`` is the source of the input that was read.
    """
    geometry = _geometry(x, weight, images, window)
    dx, dw = x.new_empty(0), weight.new_empty(0)
    g = library.to_blocked(g, slot=0)[0] if plain else g.contiguous()
    masked = mask is not None and (asked is None or asked.item() < 1)
    lists, asks = lists_of(layer), (geometry, weight, mask, weight_level, halves)
    if wants_dw:
        read = _read_again(x, line, relu, plain, images)
        if masked:
            with lists.made(*asks) as weights:
                dw = weights.masked_grad(read, g)
        else:
            least = above(input_level)
            dw, _ = library.weight_grad(geometry, read, g, sparse="input", above=least)
        del read
    if wants_dx:
        with lists.made(*asks, forward=False) as weights:
            dx = weights.input_grad(g, slot=1 if plain else None)
        if plain:
            dx = library.from_blocked(dx, images).to(x.dtype)
    return dx, dw


def _read_again(
    x: Tensor, line: Tensor | None, relu: bool, plain: bool, images: int
) -> Tensor:
    """The blocked input of a convolution, from what was kept of it."""
    if plain:
        return library.to_blocked(x, slot=1)[0]
    x = x.contiguous()
    return x if line is None else passes.norm_again(x, line, images=images, relu=relu)


@conv2d_backward.register_fake
def _(g, x, weight, *rest):
    wants_dx, wants_dw = rest[-2:]
    return (
        torch.empty_like(x) if wants_dx else x.new_empty(0),
        torch.empty_like(weight) if wants_dw else weight.new_empty(0),
    )


def _save_conv2d(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, *tensors, source, line, relu, halves, plain, images, window, layer = inputs
    ctx.rest = (relu, halves, plain, images, window, layer)
    ctx.save_for_backward(x if source is None else source, *tensors, line)


def _backward_conv2d(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    wants_dx, wants_dw = ctx.needs_input_grad[:2]
    dx, dw = conv2d_backward(g, *ctx.saved_tensors, *ctx.rest, wants_dx, wants_dw)
    return (dx if wants_dx else None, dw if wants_dw else None, *(None,) * 12)


conv2d.register_autograd(_backward_conv2d, setup_context=_save_conv2d)


@torch.library.custom_op("elision::blocked_norm", mutates_args=())
def norm(
    x: Tensor,
    residual: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    images: int,
    eps: float,
    relu: bool,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch normalisation, residual sum and ReLU of a blocked tensor in one pass.

    Args:
        x: blocked input.
        residual: blocked, added behind the normalisation; or None.
        scale: per channel, or None.
        shift: per channel, or None.
        mean: running mean, read unless ``train``.
        variance: running variance, read unless ``train``.
        images: batch size.
        eps: added to the variance.
        relu: whether a ReLU follows.
        train: use the statistics of ``x``.

    Returns:
        The output, the mean and (biased) variance that were used, and the line that
        they make: the slope of every channel, and then its offset.
    """
    if train:
        mean, variance = torch.empty_like(mean), torch.empty_like(variance)
    else:
        mean, variance = mean.clone(), variance.clone()
    x = x.contiguous()
    residual = None if residual is None else residual.contiguous()
    y, line = passes.norm_forward(
        *(x, residual, scale, shift, mean, variance),
        images=images,
        eps=eps,
        relu=relu,
        train=train,
    )
    return y, mean, variance, line


@norm.register_fake
def _(x, residual, scale, shift, mean, variance, images, eps, relu, train):
    like = (torch.empty_like(t) for t in (x, mean, mean))
    return *like, x.new_empty(2, x.shape[1])


@torch.library.custom_op("elision::blocked_norm_backward", mutates_args=())
def norm_backward(
    g: Tensor,
    x: Tensor,
    y: Tensor | None,
    line: Tensor,
    mean: Tensor,
    variance: Tensor,
    images: int,
    eps: float,
    relu: bool,
    train: bool,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, residual (empty if there was none), scale and shift."""
    dx, dresidual, dscale, dshift = passes.norm_backward(
        *(g.contiguous(), x.contiguous(), y, line, mean, variance),
        images=images,
        eps=eps,
        relu=relu,
        train=train,
        residual=residual,
    )
    return dx, x.new_empty(0) if dresidual is None else dresidual, dscale, dshift


@norm_backward.register_fake
def _(g, x, y, line, mean, variance, images, eps, relu, train, residual):
    return (
        torch.empty_like(x),
        torch.empty_like(x) if residual else x.new_empty(0),
        torch.empty_like(mean),
        torch.empty_like(mean),
    )


def _save_norm(ctx: Any, inputs: Any, output: Any) -> None:
    x, residual, *_ = inputs
    ctx.rest = (*inputs[6:], residual is not None)
    y, mean, variance, line = output
    # The line says where a ReLU made zeros, unless a residual was added to it.
    relu = inputs[8]
    kept = y if relu and residual is not None else None
    ctx.save_for_backward(x, kept, line, mean, variance)
    ctx.mark_non_differentiable(mean, variance, line)


def _backward_norm(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    gradients = norm_backward(g, *ctx.saved_tensors, *ctx.rest)
    wanted = zip(gradients, ctx.needs_input_grad, strict=False)
    return (*(value if wants else None for value, wants in wanted), *(None,) * 6)


norm.register_autograd(_backward_norm, setup_context=_save_norm)


@torch.library.custom_op("elision::blocked_max_pool", mutates_args=())
def max_pool(x: Tensor, window: list[int]) -> Tensor:
    """Max pooling of a blocked tensor; window as in :func:`passes.max_pool_forward`."""
    return passes.max_pool_forward(x.contiguous(), window)


@max_pool.register_fake
def _(x, window):
    size = passes.pooled_size(x.shape[2], x.shape[3], window)
    return x.new_empty((*x.shape[:2], *size, _LANES))


@torch.library.custom_op("elision::blocked_max_pool_backward", mutates_args=())
def max_pool_backward(g: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """Gradient of :func:`max_pool`."""
    return passes.max_pool_backward(g.contiguous(), x.contiguous(), window)


@max_pool_backward.register_fake
def _(g, x, window):
    return torch.empty_like(x)


def _save_max_pool(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, ctx.window = inputs
    ctx.save_for_backward(x)


max_pool.register_autograd(
    lambda ctx, g: (max_pool_backward(g, *ctx.saved_tensors, ctx.window), None),
    setup_context=_save_max_pool,
)
