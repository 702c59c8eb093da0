"""Lowering: one product of a layer as matrix products, in shape and in value.

A systolic array has one operation, the matrix product ``Z = A · B`` with A of shape
(m, k) and B of shape (k, n). A linear layer is one already; a convolution becomes one
by *im2col*. With M = batch·Ho·Wo output pixels, J = C/groups·R·S weights of a filter in
the order (channel, tap row, tap column), and O = K/groups filters,

    forward        Y[M, O]  = X[M, J] · Wᵀ[J, O]     X unfolded: im2col
    input_grad     dX[M, J] = G[M, O] · W[O, J]      dX folded: col2im, "scatter"
    weight_grad    dW[J, O] = Xᵀ[J, M] · G[M, O]     X unfolded

so that all three range over the same (M, O, J). Groups are separate matrix products,
one pass over the array each; a depthwise layer is as many passes as it has channels.

The alternative for the input gradient is ``"gather"``: a convolution of the
zero-dilated, padded G with the rotated filters, that is (input pixels, O·R·S) times
(O·R·S, C). It needs no scatter, but multiplies the zeros of the dilation.

Every other layer is lowered as the convolution that it is
(:func:`~elision.accelerators.base.planar`): products of a batch of matrix products are
groups, a transposed convolution's forward product is an input gradient, and its X and G
are the convolution's G and X.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from elision.accelerators.base import planar
from elision.common.names import lookup
from elision.products import Conv2dGeometry, Geometry, LayerProduct, Product

__all__ = [
    "FAMILY_OF",
    "INPUT_GRADS",
    "WEIGHT_GRADS",
    "Gemm",
    "fold_result",
    "lower",
    "matrices",
]

#: Buffers of the tensors: ``X`` and ``dX``, ``W`` and ``dW``, ``Y`` and ``G``.
#: Every product touches exactly one tensor of each.
FAMILIES = ("input", "weight", "output")

#: Buffer of each operand.
FAMILY_OF = {"input": "input", "weight": "weight", "grad_output": "output"}

#: Forms of the input gradient of a convolution.
INPUT_GRADS = {"scatter": "col2im of G · W", "gather": "convolution of dilated G"}

#: Forms of the weight gradient: the transposed result first, or the result itself.
WEIGHT_GRADS = {"XtG": "dWᵀ[J, O] = Xᵀ · G", "GtX": "dW[O, J] = Gᵀ · X"}


@dataclass(frozen=True)
class Gemm:
    """``count`` matrix products ``Z[m, n] = A[m, k] · B[k, n]`` of one layer product.

    Attributes:
        m, k, n: sizes of one of them.
        count: their number, one per group.
        families: buffers of A, B and Z: ``"input"``, ``"weight"`` or ``"output"``.
        words: distinct values of the tensors behind A, B and Z, over all groups.
            Smaller than the matrices where these are unfolded images.
        first_writes: values of Z that are the first to arrive at their place in the
            result; every other value of Z is added to one that is read back.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> lower(Product.FORWARD, MatmulGeometry(4, 8, 16)).macs
        512
    """

    m: int
    k: int
    n: int
    count: int
    families: tuple[str, str, str]
    words: tuple[int, int, int]
    first_writes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all passes."""
        return self.m * self.k * self.n * self.count


def lower(
    kind: Product,
    geometry: Geometry,
    input_grad: str = "scatter",
    weight_grad: str = "XtG",
    partial_windows: bool = False,
) -> Gemm:
    """Matrix products of one layer product.

    Args:
        kind: forward product or one of the gradients.
        geometry: shape of the layer.
        input_grad: form of a convolution's input gradient, ``"scatter"`` or
            ``"gather"``.
        weight_grad: form of the weight gradient, ``"XtG"`` or ``"GtX"``.
        partial_windows: True counts the window that hangs over the image's end where the
            stride leaves a rest, ``ceil((H - R + t)/t)`` outputs, as SCALE-Sim does; the
            layer itself has ``floor((H - R)/t) + 1``.

    Raises:
        ValueError: unknown form, or a 3-D convolution.
    """
    lookup("form of the input gradient", input_grad, INPUT_GRADS)
    lookup("form of the weight gradient", weight_grad, WEIGHT_GRADS)
    run, conv = planar(kind, geometry)
    outputs = _outputs(conv, partial_windows)
    pixels = conv.batch * outputs[0] * outputs[1]
    _, weights, filters, groups = _extents(conv)
    words = {
        "input": int(np.prod(conv.shape_of("input"))),
        "weight": int(np.prod(conv.shape_of("weight"))),
        "output": pixels * filters * groups,
    }

    # A transposed convolution's X and G are the convolution's G and X.
    own = {
        family: FAMILY_OF[geometry.convolution_operand(operand)]
        for operand, family in FAMILY_OF.items()
    }

    def gemm(m: int, k: int, n: int, families: str, first: int | None = None) -> Gemm:
        a, b, z = families.split()
        written = words[z] if first is None else first
        sizes = words[a], words[b], words[z]
        return Gemm(m, k, n, groups, (own[a], own[b], own[z]), sizes, written)

    if run is Product.FORWARD:
        return gemm(pixels, weights, filters, "input weight output")
    if run is Product.WEIGHT_GRAD:
        if _form(geometry, weight_grad) == "XtG":
            return gemm(weights, pixels, filters, "input output weight")
        return gemm(filters, pixels, weights, "output input weight")
    if input_grad == "gather":
        positions = conv.batch * conv.height * conv.width
        taps = filters * conv.kernel[0] * conv.kernel[1]
        channels = conv.in_channels // groups
        return gemm(positions, taps, channels, "output weight input")
    return gemm(
        pixels, filters, weights, "output weight input", _touched(conv, outputs)
    )


def _form(geometry: Geometry, weight_grad: str) -> str:
    """The form in the names of the convolution that is run: X and G may be exchanged."""
    if geometry.convolution_operand("input") == "input":
        return weight_grad
    return next(form for form in WEIGHT_GRADS if form != weight_grad)


def _extents(geometry: Conv2dGeometry) -> tuple[int, int, int, int]:
    """(M, J, O, groups): output pixels, weights of a filter, filters of a group."""
    groups = geometry.groups
    pixels = geometry.batch * geometry.out_height * geometry.out_width
    weights = geometry.in_channels // groups * geometry.kernel[0] * geometry.kernel[1]
    return pixels, weights, geometry.out_channels // groups, groups


def _outputs(geometry: Conv2dGeometry, partial_windows: bool) -> tuple[int, int]:
    """Output rows and columns, with the windows that hang over the end if wanted."""
    rests = (
        partial_windows
        and (size + 2 * padding - dilation * (taps - 1) - 1) % stride > 0
        for size, padding, dilation, taps, stride in zip(
            geometry.sizes,
            geometry.padding,
            geometry.dilation,
            geometry.kernel,
            geometry.stride,
            strict=True,
        )
    )
    height, width = (n + r for n, r in zip(geometry.out_sizes, rests, strict=True))
    return height, width


def _touched(geometry: Conv2dGeometry, outputs: tuple[int, int]) -> int:
    """Values of dX that any output pixel contributes to."""
    planes = geometry.batch * geometry.in_channels
    per_axis = []
    for axis, (size, windows) in enumerate(zip(geometry.sizes, outputs, strict=True)):
        taps = np.arange(geometry.kernel[axis]) * geometry.dilation[axis]
        starts = np.arange(windows) * geometry.stride[axis] - geometry.padding[axis]
        places = np.unique(starts[:, None] + taps)
        per_axis.append(int(((places >= 0) & (places < size)).sum()))
    return planes * per_axis[0] * per_axis[1]


def matrices(
    product: LayerProduct, weight_grad: str = "XtG"
) -> tuple[np.ndarray, np.ndarray]:
    """The operands of a product with values as stacks of matrices, float64.

    The input gradient is lowered in its scatter form.

    Returns:
        A of shape (count, m, k) and B of shape (count, k, n), sizes of :func:`lower`.
    """
    _, conv = planar(product.kind, product.geometry)
    form = _form(product.geometry, weight_grad)
    product = product.as_convolution()
    flat = {
        name: _flat(name, torch.as_tensor(value).detach().double(), conv)
        for name, value in product.operands.items()
    }
    if product.kind is Product.FORWARD:  # X[M, J], Wᵀ[J, O]
        return flat["input"], flat["weight"].transpose(0, 2, 1)
    if product.kind is Product.INPUT_GRAD:  # G[M, O], W[O, J]
        return flat["grad_output"], flat["weight"]
    transposed = {name: matrix.transpose(0, 2, 1) for name, matrix in flat.items()}
    if form == "XtG":
        return transposed["input"], flat["grad_output"]
    return transposed["grad_output"], flat["input"]


def _flat(name: str, value: torch.Tensor, geometry: Conv2dGeometry) -> np.ndarray:
    """A tensor as (groups, M, J), (groups, O, J) or (groups, M, O)."""
    pixels, weights, filters, groups = _extents(geometry)
    if name == "weight":
        return value.reshape(groups, filters, weights).numpy()
    if name == "input":
        value = F.unfold(
            value,
            geometry.kernel,
            dilation=geometry.dilation,
            padding=geometry.padding,
            stride=geometry.stride,
        )
    batch = geometry.batch
    split = value.reshape(batch, groups, -1, pixels // batch)
    return split.permute(1, 0, 3, 2).reshape(groups, pixels, -1).numpy()


def fold_result(
    z: np.ndarray, kind: Product, geometry: Geometry, weight_grad: str = "XtG"
) -> torch.Tensor:
    """The result of a lowered product, (count, m, n), as the tensor it stands for.

    Returns:
        ``Y``, ``dX`` or ``dW`` in torch layout, float64.
    """
    run, conv = planar(kind, geometry)
    if run is Product.WEIGHT_GRAD and _form(geometry, weight_grad) == "XtG":
        z = z.transpose(0, 2, 1)
    matrix = torch.from_numpy(np.ascontiguousarray(z))
    folded = _folded(matrix, run, conv)
    return geometry.from_convolution(kind.absent, folded)


def _folded(
    matrix: torch.Tensor, kind: Product, geometry: Conv2dGeometry
) -> torch.Tensor:
    """The result, (groups, M or O, J or O), as the tensor of a convolution."""
    if kind is Product.WEIGHT_GRAD:
        return matrix.reshape(geometry.shape_of("weight"))
    batch, groups = geometry.batch, geometry.groups
    split = matrix.reshape(groups, batch, -1, matrix.shape[-1]).permute(1, 0, 3, 2)
    if kind is Product.FORWARD:
        return split.reshape(geometry.shape_of("grad_output"))
    return F.fold(
        split.reshape(batch, -1, split.shape[-1]),
        (geometry.height, geometry.width),
        geometry.kernel,
        dilation=geometry.dilation,
        padding=geometry.padding,
        stride=geometry.stride,
    )
