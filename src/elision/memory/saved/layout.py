"""Memory layout of a saved tensor, and its reconstruction.

Codecs work on *dense* tensors: every element of a contiguous stretch of memory exactly
once, in any order of axes. Three kinds of tensor reach them:

- dense ones, contiguous or ``channels_last`` or transposed: as they are;
- expanded ones (a stride of zero): only one copy of what is repeated;
- strided views with holes (a slice of a fused projection): gathered first; so are views
  that are conjugated or negated only when they are read.

Tensors without such memory of their own (sparse, nested, batched by ``vmap``, fake, meta,
quantised, of another class) are none of the codecs' business.

Either way the restored tensor has the same shape and, for the first two kinds, the same
strides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Layout", "dense_part", "flat", "has_memory", "is_dense", "lay_down"]

_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]


def has_memory(tensor: torch.Tensor) -> bool:
    """True for an ordinary tensor: strided, with its elements in memory of its own."""
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not (tensor.is_meta or tensor.is_nested or tensor.is_quantized)
        and not _is_wrapped(tensor)
    )


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """True if such a tensor covers one stretch of memory, each element once."""
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size == 1:
            continue
        if step != expected:
            return False
        expected *= size
    return True


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a dense tensor in memory order: a view, ``(numel,)``."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def dense_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of the tensor that a codec stores: a view if possible, else a copy."""
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.is_contiguous():
        return tensor
    for axis, (size, stride) in enumerate(
        zip(tensor.shape, tensor.stride(), strict=True)
    ):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    if not is_dense(tensor.shape, tensor.stride()):
        tensor = tensor.clone(memory_format=torch.preserve_format)
    return tensor


def lay_down(
    values: torch.Tensor, shape: torch.Size, stride: tuple[int, ...]
) -> torch.Tensor:
    """Restored ``values`` of a dense part, seen as the tensor that was saved."""
    if values.shape == shape and values.stride() == stride:
        return values
    if 0 in values.stride():  # one unspecified value, expanded: no strides to keep
        return values.expand(shape)
    if any(step == 0 and size > 1 for step, size in zip(stride, shape, strict=True)):
        return values.expand(shape)
    if is_dense(shape, stride):  # another view of the memory that was packed
        return values.as_strided(shape, stride)
    return values


@dataclass(frozen=True)
class Layout:
    """Shape, strides and dtype of a dense tensor.

    Attributes:
        shape: sizes.
        stride: strides in elements.
        dtype: element type.
        device: where it lives.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Layout":
        """Layout of a dense tensor."""
        return cls(
            tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device
        )

    @property
    def numel(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    def empty(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """An uninitialised tensor of this layout (and another dtype, if given)."""
        return torch.empty_strided(
            self.shape, self.stride, dtype=dtype or self.dtype, device=self.device
        )

    def view(self, values: torch.Tensor) -> torch.Tensor:
        """Flat ``values`` in memory order, seen in this layout, in this dtype."""
        return values.to(self.dtype).as_strided(self.shape, self.stride)
