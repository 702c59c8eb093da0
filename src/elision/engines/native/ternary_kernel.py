"""What the ternary kernels share: a product group by group, and images as integers."""

import ctypes
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from elision.native.shared_object import load
from elision.products import Conv2dGeometry

__all__ = ["TernaryKernel", "integer_images"]


class TernaryKernel(ABC):
    """A layer's ternary weight in the order of one kernel; a member multiplies a group.

    Example:
        >>> from elision.engines.native.ternary import PackedTernary
        >>> issubclass(PackedTernary, TernaryKernel)
        True
    """

    def product(
        self,
        x: Tensor,
        geometry: Conv2dGeometry,
        bias: Tensor,
        step: float,
        padding: tuple[int, int],
    ) -> Tensor:
        """``step · (x ∗ W) + bias`` for integers ``x``.

        Args:
            x: of the function that prepares images for this kernel, padded.
            geometry: of the convolution; a linear layer is one of size 1 by 1.
            bias: float32 ``(K,)``.
            step: what an integer of ``x`` is worth.
            padding: rows and columns that ``x`` was padded by on each side.

        Returns:
            float32 ``(N, K, P, Q)``.
        """
        v = geometry
        y = torch.empty((v.batch, v.out_channels, v.out_height, v.out_width))
        images = (v.batch, v.height + 2 * padding[0], v.width + 2 * padding[1])
        rows = v.out_channels // v.groups
        bias = bias.float().contiguous()
        for group in range(v.groups):
            own = bias[group * rows :]
            if self._multiply(group, images, x, v, own, step, y) < 0:
                raise MemoryError("the ternary kernel ran out of memory")
        return y

    @abstractmethod
    def _multiply(
        self,
        group: int,
        images: tuple[int, int, int],
        x: Tensor,
        geometry: Conv2dGeometry,
        bias: Tensor,
        step: float,
        y: Tensor,
    ) -> int:
        """Write one group's outputs into ``y``; below zero without the memory for it.

        Args:
            group: its number.
            images: examples, rows and columns of ``x``.
            x: the prepared images.
            geometry: of the whole layer.
            bias: that of this group and of those after it.
            step: what an integer of ``x`` is worth.
            y: float32 ``(N, K, P, Q)``.
        """


def integer_images(
    x: Tensor,
    step: float,
    zero: int,
    padding: tuple[int, int],
    function: str,
    dtype: torch.dtype,
    order: str,
) -> tuple[Tensor, bool]:
    """Images as integers in the order of one kernel, and whether every value is finite.

    Args:
        x: ``(N, C, H, W)``.
        step: what an integer is worth, positive.
        zero: the integer of 0.0, in [-128, 127]; the padding's value.
        padding: rows and columns on each side.
        function: of the kernels that writes them.
        dtype: of the integers.
        order: of the dimensions, ``"NHWC"`` or ``"CNHW"``.
    """
    x = x.detach().float().contiguous()
    n, c, h, w = x.shape
    sizes = {"N": n, "C": c, "H": h + 2 * padding[0], "W": w + 2 * padding[1]}
    q = torch.empty([sizes[name] for name in order], dtype=dtype)
    shape = (ctypes.c_int * 8)(n, c, h, w, *padding, sizes["H"], sizes["W"])
    write = getattr(load(), f"elision_{function}")
    finite = write(
        x.data_ptr(), q.data_ptr(), shape, step, zero, torch.get_num_threads()
    )
    return q, bool(finite)
