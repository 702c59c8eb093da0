"""Dense products by the batch-reduce kernel: convolutions and matrix products.

``C += Σ_i A_i·B_i`` with ``C`` in registers is the one kernel under the three products of
both (Georganas et al., "Harnessing deep learning via a single building block", arXiv
1906.06440). With blocks of channels ``c`` and ``k``, taps ``r, s`` and stride ``t``::

    Y[n, oj, oi]  sums  X[n, t·oj + r, t·oi + s] · W[r, s]     over c, r, s
    dX, phase φ   sums  G[n, (h − r)/t, (w − s)/t] · W[r, s]ᵀ  over k and the r, s that divide
    dW[r, s]      sums  X[n, t·oj + r, t·oi + s]ᵀ · G[n, oj, oi]   over n, oj, oi

The kernels read channels side by side: torch's ``channels_last``, or blocks of 16 of them
(:func:`to_blocks`), as direct convolutions do. Scale, shift and ReLU of each output channel
are applied to a sum while it is in registers (:class:`Post`).
"""

import ctypes
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elision.common.selecting import select
from elision.engines.base import NO_HINT, Engine, Hint
from elision.engines.native.channels import is_finite
from elision.engines.native.groups import group_by_group
from elision.engines.torch_engine import TorchEngine
from elision.native.shared_object import load, unavailable
from elision.products import Conv2dGeometry, LayerProduct, Product

__all__ = [
    "DirectEngine",
    "Post",
    "convolution_numbers",
    "dense_product",
    "from_blocks",
    "padded_vectors",
    "side_by_side",
    "to_blocks",
]

#: Output channels that the kernel computes together; the post-operations' vectors are
#: padded to a multiple.
BLOCK = 64


#: Dtypes of operands that the kernel multiplies; sums are float32.
DTYPES = (torch.float32, torch.bfloat16)

#: Times that a matrix product must have more columns than rows for the rows to be packed
#: in place of the weight (an own choice).
FEWER = 4


@dataclass(frozen=True, eq=False)
class Post:
    """Operations on each complete sum of output channel k: ``relu(scale·sum + shift)``.

    A bias is a shift; batch normalisation with its running statistics is
    ``scale = γ/√(σ² + ε)``, ``shift = β − µ·scale``.

    Attributes:
        scale: float32 ``(K,)``; None is one.
        shift: float32 ``(K,)``; None is zero.
        relu: whether sums below zero become zero at the end; NaN stays.

    Example:
        >>> geometry = Conv2dGeometry(1, 2, 1, 1, 1, kernel=1)
        >>> x, w = torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
        >>> y = dense_product(Product.FORWARD, geometry, x, w, post=Post(shift=torch.ones(1)))
        >>> y.flatten().tolist()
        [3.0]
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    relu: bool = False

    def check(self, channels: int) -> None:
        """Raise ValueError unless scale and shift have one value a channel."""
        for name in ("scale", "shift"):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != (channels,):
                raise ValueError(
                    f"Post({name}=): shape {tuple(value.shape)}, the layer has "
                    f"{channels} output channels"
                )


def to_blocks(x: Tensor, side: int) -> Tensor:
    """``(N, C, H, W)`` to ``(N, C/side, H, W, side)``, contiguous.

    Raises:
        ValueError: ``side`` does not divide the channels.

    Example:
        >>> to_blocks(torch.zeros(2, 32, 5, 6), 16).shape
        torch.Size([2, 2, 5, 6, 16])
    """
    if side < 1 or x.shape[1] % side:
        raise ValueError(f"to_blocks(side={side}): must divide {x.shape[1]} channels")
    return x.unflatten(1, (-1, side)).movedim(2, -1).contiguous()


def from_blocks(x: Tensor) -> Tensor:
    """Inverse of :func:`to_blocks`."""
    return x.movedim(-1, 2).flatten(1, 2)


def dense_product(
    kind: Product,
    geometry: Conv2dGeometry,
    first: Tensor,
    second: Tensor,
    *,
    post: Post | None = None,
    blocks: tuple[int, int] | None = None,
) -> Tensor:
    """One product of a convolution by the native kernel.

    Args:
        kind: which of the three products.
        geometry: the layer; with ``blocks`` no groups.
        first: float32 or bfloat16 operand ``kind.operands[0]`` on the CPU, torch layout in
            any memory format (``channels_last`` is read as it is).
        second: operand ``kind.operands[1]``, likewise and of the same dtype.
        post: done to each sum of the forward product.
        blocks: channels side by side of input and output, which then are of
            :func:`to_blocks`'s shape (float32); None: torch's shapes.

    Returns:
        ``Y`` or ``dX``, ``channels_last`` (or in blocks), or ``dW``, contiguous, of the
        operands' dtype. Sums are float32; those of bfloat16 are rounded once.

    Raises:
        ValueError: ``post`` for a gradient, or of another number of channels; ``blocks``
            with groups, or that do not divide the channels; operands of other shapes,
            dtypes or devices.
        elision.native.builder.BuildError: there are no native kernels here.
        MemoryError: the kernels ran out of memory.
    """
    if post is not None:
        if kind is not Product.FORWARD:
            raise ValueError(f"dense_product(post=): not for {kind.value}")
        post.check(geometry.out_channels)
    if geometry.groups > 1:
        if blocks is not None:
            raise ValueError(
                f"dense_product(blocks={blocks}): not with {geometry.groups} groups"
            )
        return _grouped(kind, geometry, first, second, post)
    dtype = first.dtype if first.dtype in DTYPES and blocks is None else torch.float32
    for name, value in zip(kind.operands, (first, second), strict=True):
        expected = _shape(geometry, name, blocks)
        if (tuple(value.shape), value.dtype, value.device.type) != (
            expected,
            dtype,
            "cpu",
        ):
            raise ValueError(
                f"dense_product: {name} is {tuple(value.shape)} {value.dtype} on "
                f"{value.device}, must be {expected} {dtype} on cpu"
            )
    if dtype == torch.bfloat16:
        return _of_pairs(kind, geometry, first, second, post)
    if (
        kind is Product.FORWARD
        and post is None
        and blocks is None
        and _is_low(geometry)
    ):
        return _turned(geometry, first, second)
    return _computed(kind, geometry, first, second, post, blocks)


def _computed(
    kind: Product,
    geometry: Conv2dGeometry,
    first: Tensor,
    second: Tensor,
    post: Post | None,
    blocks: tuple[int, int] | None = None,
    *,
    pairs: bool = False,
) -> Tensor:
    """The product, of operands that fit; ``pairs``: their words are two of bfloat16."""
    sides = blocks or (geometry.in_channels, geometry.out_channels)
    tensors = [
        _side_by_side(value, name, blocks)
        for name, value in zip(kind.operands, (first, second), strict=True)
    ]
    pointers = [value.data_ptr() for value in tensors]
    whole = blocks is not None or kind.absent == "weight"
    result = torch.empty(
        _shape(geometry, kind.absent, blocks),
        dtype=torch.float32,
        device="cpu",
        memory_format=torch.contiguous_format if whole else torch.channels_last,
    )
    shape = (ctypes.c_int64 * 15)(*convolution_numbers(geometry, sides))
    function = getattr(load(), f"elision_direct_{kind.value}")
    threads = torch.get_num_threads()
    if kind is Product.FORWARD:
        post = post or Post()
        vectors = padded_vectors(post)
        places = [None if value is None else value.data_ptr() for value in vectors]
        rest = (*places, post.relu, result.data_ptr(), threads)
    else:
        rest = (result.data_ptr(), threads)
    done = function(shape, pairs, *pointers, *rest)
    if done < 0:
        raise MemoryError("the native kernels ran out of memory")
    return result


def _of_pairs(
    kind: Product,
    geometry: Conv2dGeometry,
    first: Tensor,
    second: Tensor,
    post: Post | None,
) -> Tensor:
    """The product of bfloat16, summed in float32 and rounded once.

    Two values that lie side by side along what is summed over are one word, so the kernel
    moves and addresses words as it does floats: pairs of input channels for ``Y``, of
    output channels for ``dX``, of images for ``dW``. An odd one is paired with zero.
    """
    if not load().elision_multiplies_pairs():
        wide = (first.float(), second.float())
        return _computed(kind, geometry, *wide, post).to(torch.bfloat16)
    axes, counted = _SUMMED[kind]
    words = [
        _words(value, axis) for value, axis in zip((first, second), axes, strict=True)
    ]
    half = -(-getattr(geometry, counted) // 2)
    narrow = replace(geometry, **{counted: half})
    sums = _computed(kind, narrow, words[0], words[1], post, pairs=True)
    return sums.to(torch.bfloat16)


#: Axes of both operands along which a product sums, and what counts them.
_SUMMED = {
    Product.FORWARD: ((1, 1), "in_channels"),
    Product.INPUT_GRAD: ((1, 0), "out_channels"),
    Product.WEIGHT_GRAD: ((0, 0), "batch"),
}


def _words(x: Tensor, axis: int) -> Tensor:
    """Pairs along an axis as words of 32 bits, which are no floats, channels last."""
    if x.shape[axis] % 2:
        odd = list(x.shape)
        odd[axis] = 1
        x = torch.cat([x, x.new_zeros(odd)], axis)
    place = {0: 0, 1: 3}[axis]
    last = x.permute(0, 2, 3, 1).unflatten(place, (-1, 2)).movedim(place + 1, -1)
    flat = last.flatten()  # whatever the strides of axes of one
    if flat.storage_offset() % 2 or flat.data_ptr() % 4:  # begins within a word
        flat = flat.clone()
    return flat.view(torch.float32).view(last.shape[:-1]).permute(0, 3, 1, 2)


def _is_low(geometry: Conv2dGeometry) -> bool:
    """Whether a layer is a matrix product of few rows."""
    v = geometry
    single = (v.height, v.width, *v.kernel) == (1, 1, 1, 1) and not any(v.padding)
    return single and FEWER * v.batch <= v.out_channels


def _turned(geometry: Conv2dGeometry, x: Tensor, weight: Tensor) -> Tensor:
    """``Yᵀ = W·Xᵀ``: of the two operands the second is packed, here the smaller."""
    turned = replace(geometry, batch=geometry.out_channels, out_channels=geometry.batch)
    y = dense_product(Product.FORWARD, turned, weight, x)
    return y.transpose(0, 1).contiguous()


def _shape(
    geometry: Conv2dGeometry, name: str, blocks: tuple[int, int] | None
) -> tuple[int, ...]:
    shape = geometry.shape_of(name)
    if blocks is None or name == "weight":
        return shape
    side = blocks[name == "grad_output"]
    if side < 1 or shape[1] % side:
        raise ValueError(
            f"dense_product(blocks={blocks}): {side} must divide {shape[1]} channels"
        )
    return shape[0], shape[1] // side, *shape[2:], side


def _side_by_side(value: Tensor, name: str, blocks: tuple[int, int] | None) -> Tensor:
    if name == "weight" or blocks is not None:
        return value.contiguous()
    return side_by_side(value)


def side_by_side(x: Tensor) -> Tensor:
    """The tensor with all channels of a pixel side by side, as the kernels read it."""
    return x.contiguous(memory_format=torch.channels_last)


def convolution_numbers(
    geometry: Conv2dGeometry, sides: tuple[int, int]
) -> tuple[int, ...]:
    """The layer as the kernels read it; ``sides``: channels side by side, in and out."""
    v = geometry
    return (
        *(v.batch, v.in_channels, v.height, v.width, v.out_channels),
        *(*v.kernel, *v.stride, *v.padding, *v.dilation, *sides),
    )


def padded_vectors(post: Post) -> list[Tensor | None]:
    """Scale and shift, filled up to whole blocks of channels."""
    return [_padded(value) for value in (post.scale, post.shift)]


def _padded(vector: Tensor | None) -> Tensor | None:
    if vector is None:
        return None
    size = -(-len(vector) // BLOCK) * BLOCK
    padded = torch.zeros(size, dtype=torch.float32, device="cpu")
    padded[: len(vector)] = vector
    return padded


def _grouped(
    kind: Product,
    geometry: Conv2dGeometry,
    first: Tensor,
    second: Tensor,
    post: Post | None,
) -> Tensor:
    """Group by group, each a convolution of its own channels."""
    group = 0

    def of_group(part: Conv2dGeometry, left: Tensor, right: Tensor) -> Tensor:
        nonlocal group
        own = None
        if post is not None:
            begin, size = group * part.out_channels, part.out_channels
            scale, shift = (
                None if value is None else value[begin : begin + size]
                for value in (post.scale, post.shift)
            )
            own = Post(scale, shift, post.relu)
        group += 1
        return dense_product(kind, part, left, right, post=own)

    tensors = dict(zip(kind.operands, (first, second), strict=True))
    result = group_by_group(kind, geometry, tensors, of_group)
    assert result is not None
    return result


class DirectEngine(Engine):
    """Dense products by the batch-reduce kernel; what it does not know is torch's.

    Convolutions over images and lines, transposed ones, and matrix products, float32 or
    bfloat16 on the CPU. Zeros of the padding are multiplied along the rows of an image, so
    an operand that is not finite goes to torch where there is padding. Operands and results
    below 1.2e-38, the smallest normal float32, count as zero.

    ``elide`` does not take it: a layer of which nothing is left out promises torch's
    result to the last bit. ``docs/kernels.md`` says where it is faster.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> x, weight = torch.eye(2), torch.tensor([[1.0, 2.0]])
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(2, 2, 1), x, weight)
        >>> DirectEngine().compute(product).tolist()
        [[1.0], [2.0]]
    """

    name = "direct"
    leaves_zeros_out = False

    def __init__(self) -> None:
        self._torch = TorchEngine()

    def unavailable(self) -> str | None:
        """The reason why the kernels cannot be used here; the first call builds them."""
        return unavailable()

    def supports(self, product: LayerProduct, hint: Hint = NO_HINT) -> bool:
        """Whether the layer is, reshaped, a convolution over images."""
        return product.geometry.reshaped_convolution is not None

    def choose(self, product: LayerProduct, hint: Hint = NO_HINT) -> Engine:
        """This engine, or torch's for a product without a kernel here."""
        hint.check(product)
        able = (
            product.first.dtype == product.second.dtype
            and product.first.dtype in DTYPES
            and all(v.device.type == "cpu" for v in product.operands.values())
            and product.fits
            and self.supports(product, hint)
            and self.unavailable() is None
        )
        return self if able else self._torch

    def compute(self, product: LayerProduct, hint: Hint = NO_HINT) -> Tensor:
        """Compute one product densely; see :meth:`Engine.compute`."""
        geometry = product.geometry
        conv = geometry.reshaped_convolution
        if self.choose(product, hint) is not self or conv is None:
            return self._torch.compute(product, hint)
        kind = geometry.convolution_product(product.kind)
        given = {
            geometry.convolution_operand(name): value.detach()
            for name, value in product.operands.items()
        }
        first, second = (given[o].reshape(conv.shape_of(o)) for o in kind.operands)
        if any(conv.padding) and not (is_finite(first) and is_finite(second)):
            return self._torch.compute(product, hint)
        result = dense_product(kind, conv, first, second).reshape(product.result_shape)
        return result if hint.wanted is None else select(result, hint.wanted != 0)
