"""What lies between the products of a network, in the blocked layout: norms and pools.

As in :mod:`elision.engines.native.library`, each is one function of the built kernels.
"""

import ctypes

import torch

from elision.engines.native.library import LANES
from elision.native.shared_object import load

__all__ = [
    "max_pool_backward",
    "max_pool_forward",
    "norm_apply",
    "norm_backward",
    "norm_statistics",
    "pooled_size",
]


def norm_statistics(
    x: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    *,
    images: int,
    eps: float,
    train: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Statistics of batch normalisation of a blocked tensor.

    With ``train`` the (biased) statistics of ``x`` are written to ``mean`` and
    ``variance``; without, they are read.

    Returns:
        The inverse standard deviation, ``(C,)``, and the affine map that normalises,
        ``(2, C)``: slopes, then offsets.
    """
    inverse_std, affine = torch.empty_like(mean), x.new_empty(2, x.shape[1])
    pointers = (x, scale, shift, mean, variance, inverse_std, affine)
    load().elision_norm_statistics(
        *map(_pointer, pointers),
        images,
        *_channels_and_plane(x),
        eps,
        train,
        torch.get_num_threads(),
    )
    return inverse_std, affine


def norm_apply(
    x: torch.Tensor,
    affine: torch.Tensor,
    residual: torch.Tensor | None,
    *,
    images: int,
    relu: bool,
) -> torch.Tensor:
    """``[ReLU](x · slope + offset [+ residual])``; the same bits at every call."""
    y = torch.empty_like(x)
    load().elision_norm_apply(
        *map(_pointer, (x, residual, affine, y)),
        images,
        *_channels_and_plane(x),
        relu,
        torch.get_num_threads(),
    )
    return y


def norm_backward(
    g: torch.Tensor,
    g_more: torch.Tensor | None,
    x: torch.Tensor,
    y: torch.Tensor | None,
    affine: torch.Tensor,
    mean: torch.Tensor,
    inverse_std: torch.Tensor,
    *,
    images: int,
    relu: bool,
    train: bool,
    residual: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Gradients of x, of the residual if there was one, of scale and of shift.

    The gradient of the output is ``g``, plus ``g_more`` where it has come in two parts.
    ``y``, the output, is needed only where there was a residual and a ReLU.
    """
    dx, dscale, dshift = (torch.empty_like(t) for t in (x, mean, mean))
    dresidual = torch.empty_like(x) if residual else None
    pointers = (
        *(g, g_more, x, y, affine, mean, inverse_std),
        *(dx, dresidual, dscale, dshift),
    )
    load().elision_norm_backward(
        *map(_pointer, pointers),
        images,
        *_channels_and_plane(x),
        relu,
        train,
        torch.get_num_threads(),
    )
    return dx, dresidual, dscale, dshift


def _channels_and_plane(x: torch.Tensor) -> tuple[int, int]:
    return x.shape[1], x.shape[2] * x.shape[3]


def pooled_size(height: int, width: int, window: list[int]) -> tuple[int, int]:
    """Rows and columns that :func:`max_pool_forward` returns."""
    sizes = []
    for size, kernel, stride, pad in zip(
        (height, width), window[:2], window[2:4], window[4:6], strict=True
    ):
        reach = size + 2 * pad - kernel
        count = (reach + (stride - 1) * window[6]) // stride + 1
        if window[6] and (count - 1) * stride >= size + pad:
            count -= 1  # torch drops a window that lies on padding alone
        sizes.append(count)
    return sizes[0], sizes[1]


def max_pool_forward(x: torch.Tensor, window: list[int]) -> torch.Tensor:
    """Max pooling of a blocked tensor.

    Args:
        x: blocked input.
        window: kernel, stride and padding, (vertical, horizontal) each, and 1 if the
            size is rounded up (torch's ``ceil_mode``), else 0.
    """
    h, w = pooled_size(x.shape[2], x.shape[3], window)
    y = x.new_empty((*x.shape[:2], h, w, LANES))
    load().elision_max_pool_forward(
        _pool(x, window), x.data_ptr(), y.data_ptr(), torch.get_num_threads()
    )
    return y


def max_pool_backward(
    g: torch.Tensor, x: torch.Tensor, window: list[int]
) -> torch.Tensor:
    """Gradient of the input of :func:`max_pool_forward`."""
    dx = torch.empty_like(x)
    load().elision_max_pool_backward(
        _pool(x, window),
        g.data_ptr(),
        x.data_ptr(),
        dx.data_ptr(),
        torch.get_num_threads(),
    )
    return dx


def _pool(x: torch.Tensor, window: list[int]) -> ctypes.Array[ctypes.c_int]:
    h, w = x.shape[2:4]
    planes = x.shape[0] * x.shape[1]
    return (ctypes.c_int * 11)(planes, h, w, *pooled_size(h, w, window), *window[:6])


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
