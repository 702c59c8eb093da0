"""The three products of a training step: what they are, and what they count.

A layer with input ``X``, weight ``W`` and output ``Y`` computes, in one step of
training, three products of two operands each (``G`` is the gradient of the loss with
respect to ``Y``)::

    FORWARD       Y  = X · W     operands: input,       weight
    INPUT_GRAD    dX = G · Wᵀ    operands: grad_output, weight
    WEIGHT_GRAD   dW = G · X     operands: grad_output, input

where ``·`` is a convolution or a matrix product. Everything else in the library is a
statement about these products, so this module is the ground: it imports nothing of ours.

All three products of a convolution range over the same set of index tuples. With
stride ``t``, padding ``p`` and dilation ``d``, input pixel ``y``, kernel tap ``r`` and
output pixel ``o`` meet iff ``y = o·t − p + r·d`` (per axis, each within its own range).
A product fixes two of the three and sums over the tuples they can form; the counts
below exploit that the operand which is absent is, for counting, all ones.
"""

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn import grad as conv_grad

__all__ = [
    "OPERANDS",
    "Conv2dGeometry",
    "Geometry",
    "LayerProduct",
    "MatmulGeometry",
    "Product",
    "ProductCounts",
    "geometry_of",
]

#: The three tensors that the products read, in the order a layer meets them.
OPERANDS = ("input", "weight", "grad_output")


class Product(enum.Enum):
    """One of the three products of a layer's training step."""

    FORWARD = "forward"
    INPUT_GRAD = "input_grad"
    WEIGHT_GRAD = "weight_grad"

    @property
    def operands(self) -> tuple[str, str]:
        """Names of the first and the second operand."""
        return _OPERANDS_OF[self]

    @property
    def absent(self) -> str:
        """The one of the three tensors that this product does not read."""
        return next(name for name in OPERANDS if name not in self.operands)


_OPERANDS_OF = {
    Product.FORWARD: ("input", "weight"),
    Product.INPUT_GRAD: ("grad_output", "weight"),
    Product.WEIGHT_GRAD: ("grad_output", "input"),
}


def _pair(name: str, value: Any, minimum: int) -> tuple[int, int]:
    """Return ``value`` as (vertical, horizontal) integers of at least ``minimum``."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(
        isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < minimum
        for v in pair
    ):
        raise ValueError(
            f"{name} must be an integer >= {minimum} or a pair of them, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def _positive(owner: object, *names: str) -> None:
    """Raise ValueError unless each named attribute is an integer of at least 1."""
    for name in names:
        value = getattr(owner, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, np.integer))
            or value < 1
        ):
            raise ValueError(
                f"{type(owner).__name__}.{name} must be an integer >= 1, got {value!r}"
            )
        object.__setattr__(owner, name, int(value))


@dataclass(frozen=True)
class Conv2dGeometry:
    """Shape of a 2-D convolution; the layouts are torch's.

    ``kernel``, ``stride``, ``padding`` and ``dilation`` take an integer or a
    (vertical, horizontal) pair and are stored as pairs.

    Attributes:
        batch: images, ``N``.
        in_channels: channels of the input, ``C``.
        height: rows of the input, ``H``.
        width: columns of the input, ``W``.
        out_channels: channels of the output, ``K``.
        kernel: taps, ``(R, S)``.
        stride: step between output pixels, in input pixels.
        padding: zeros added on each side of the input.
        dilation: step between taps, in input pixels.
        groups: independent blocks of channels; divides both channel counts.

    Raises:
        ValueError: a size is not a positive integer, ``groups`` does not divide the
            channels, or the dilated kernel is larger than the padded input.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    if TYPE_CHECKING:  # what may be given; what is kept are pairs

        def __init__(
            self,
            batch: int,
            in_channels: int,
            height: int,
            width: int,
            out_channels: int,
            kernel: int | tuple[int, int],
            stride: int | tuple[int, int] = 1,
            padding: int | tuple[int, int] = 0,
            dilation: int | tuple[int, int] = 1,
            groups: int = 1,
        ) -> None: ...

    def __post_init__(self) -> None:
        _positive(
            self, "batch", "in_channels", "height", "width", "out_channels", "groups"
        )
        minima = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
        for name, minimum in minima.items():
            value = _pair(f"Conv2dGeometry.{name}", getattr(self, name), minimum)
            object.__setattr__(self, name, value)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"Conv2dGeometry.groups={self.groups} must divide in_channels="
                f"{self.in_channels} and out_channels={self.out_channels}"
            )
        if self.out_height < 1 or self.out_width < 1:
            raise ValueError(
                f"Conv2dGeometry: kernel {self.kernel} with dilation {self.dilation} "
                f"does not fit the input {self.height}x{self.width} padded by "
                f"{self.padding}"
            )

    @classmethod
    def of(
        cls, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], **how: Any
    ) -> "Conv2dGeometry":
        """Geometry of a convolution from the shapes of its input and weight.

        Args:
            input_shape: ``(N, C, H, W)``.
            weight_shape: ``(K, C/groups, R, S)``.
            **how: stride, padding, dilation, groups.
        """
        batch, channels, height, width = input_shape
        out_channels, _, *kernel = weight_shape
        pair = (kernel[0], kernel[1])
        return cls(batch, channels, height, width, out_channels, pair, **how)

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._out(0, self.height)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._out(1, self.width)

    def _out(self, axis: int, size: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        return {
            "input": (self.batch, self.in_channels, self.height, self.width),
            "weight": (
                self.out_channels,
                self.in_channels // self.groups,
                *self.kernel,
            ),
            "grad_output": (
                self.batch,
                self.out_channels,
                self.out_height,
                self.out_width,
            ),
        }[operand]

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, padding included; equal for all three.

        ``N·K·Ho·Wo·(C/groups)·R·S``, the convention of ``torch.utils.flop_counter``
        (which counts two operations each).
        """
        outputs = self.batch * self.out_channels * self.out_height * self.out_width
        return outputs * (self.in_channels // self.groups) * int(np.prod(self.kernel))


@dataclass(frozen=True)
class MatmulGeometry:
    """Shape of a linear layer.

    ``Y[rows, columns] = X[rows, inner] · W[columns, inner]ᵀ``.

    Raises:
        ValueError: a size is not a positive integer.
    """

    rows: int
    inner: int
    columns: int

    def __post_init__(self) -> None:
        _positive(self, "rows", "inner", "columns")

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        return {
            "input": (self.rows, self.inner),
            "weight": (self.columns, self.inner),
            "grad_output": (self.rows, self.columns),
        }[operand]

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, ``rows·inner·columns``."""
        return self.rows * self.inner * self.columns


Geometry = Conv2dGeometry | MatmulGeometry


def geometry_of(
    input: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> Geometry:
    """Geometry from the shapes of a layer's input and weight."""
    if convolution is None:
        return MatmulGeometry(input[0], input[1], weight[0])
    stride, padding, dilation, groups = convolution
    return Conv2dGeometry.of(
        input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@dataclass(frozen=True)
class ProductCounts:
    """Exact numbers of products of two non-zero operand values.

    Attributes:
        nonzero: pairs that an outer-product machine forms: every non-zero of a plane of
            the first operand with every non-zero of the matching plane of the second.
        valid: those pairs that belong to an output of the product.
    """

    nonzero: int
    valid: int

    @property
    def redundant(self) -> int:
        """Redundant Cartesian products (RCPs): pairs that belong to no output."""
        return self.nonzero - self.valid

    @property
    def rcp_fraction(self) -> float:
        """Share of RCPs among the non-zero products; 0 where there is none."""
        return self.redundant / self.nonzero if self.nonzero else 0.0


@dataclass(frozen=True, eq=False)
class LayerProduct:
    """One product of one layer at one step, with the operands it really read.

    Attributes:
        kind: which of the three products.
        geometry: shape of the layer.
        first, second: the operands named by ``kind.operands``, torch tensors or numpy
            arrays in torch layouts (``X: N,C,H,W``; ``W: K,C/groups,R,S``;
            ``G: N,K,P,Q``; for a matrix product ``X: rows,inner``;
            ``W: columns,inner``; ``G: rows,columns``). Both None for a value-blind
            model, which needs the shape alone.
        name: name of the layer in its model.
        step: training step.

    Raises:
        ValueError: an operand does not have the shape that the geometry gives it, or
            only one of the two is None.
    """

    kind: Product
    geometry: Geometry
    first: Any = None
    second: Any = None
    name: str = ""
    step: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Product):
            raise ValueError(f"kind must be a Product, got {self.kind!r}")
        if (self.first is None) != (self.second is None):
            raise ValueError(f"{self._where}: give both operands or neither")
        if self.first is None:
            return
        for operand, value in zip(
            self.kind.operands, (self.first, self.second), strict=True
        ):
            expected = self.geometry.shape_of(operand)
            if tuple(value.shape) != expected:
                raise ValueError(
                    f"{self._where}: {operand} has shape {tuple(value.shape)}, "
                    f"the geometry {self.geometry} needs {expected}"
                )

    def __repr__(self) -> str:
        """Name, product and shape, never the operands' values."""
        blind = ", operands=None" if self.first is None else ""
        label = f"{self.name!r}, " if self.name else ""
        kind = self.kind.name
        return f"LayerProduct({label}{kind}, {self.geometry}, step={self.step}{blind})"

    @property
    def _where(self) -> str:
        return f"{self.kind.value} of layer {self.name or '(unnamed)'}"

    @property
    def operands(self) -> dict[str, Any]:
        """The two operands by name."""
        return dict(zip(self.kind.operands, (self.first, self.second), strict=True))

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the product when nothing is left out."""
        return self.geometry.dense_macs

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the product's result: that of the tensor it does not read."""
        return self.geometry.shape_of(self.kind.absent)

    @property
    def result_size(self) -> int:
        """Number of values of the result."""
        return int(np.prod(self.result_shape))

    def compute(self) -> torch.Tensor:
        """The product itself, computed densely: the oracle for every engine.

        Returns:
            ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype; equal to
            what autograd computes for the layer.
        """
        first, second = (torch.as_tensor(v) for v in self._present())
        geometry = self.geometry
        if isinstance(geometry, MatmulGeometry):
            if self.kind is Product.FORWARD:
                return first @ second.T
            if self.kind is Product.INPUT_GRAD:
                return first @ second
            return first.T @ second
        how = {
            "stride": geometry.stride,
            "padding": geometry.padding,
            "dilation": geometry.dilation,
            "groups": geometry.groups,
        }
        if self.kind is Product.FORWARD:
            return F.conv2d(first, second, **how)
        if self.kind is Product.INPUT_GRAD:
            return conv_grad.conv2d_input(self.result_shape, second, first, **how)
        return conv_grad.conv2d_weight(second, self.result_shape, first, **how)

    @property
    def densities(self) -> dict[str, float]:
        """Fraction of non-zeros of each operand, by operand name."""
        return {
            name: float(mask.mean())
            for name, mask in zip(self.kind.operands, self.masks, strict=True)
        }

    @cached_property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the two operands are non-zero, as boolean numpy arrays.

        Raises:
            ValueError: an operand holds a NaN or an infinity, or there is no operand.
        """
        first, second = (
            self._mask(name, value) for name, value in self._named_present()
        )
        return first, second

    @cached_property
    def counts(self) -> ProductCounts:
        """The numbers of non-zero products and, of these, of valid ones.

        Exact, without enumerating pairs: the pairs of a plane factorise, and the valid
        ones are a convolution of per-position counts (see the module's docstring).

        Raises:
            ValueError: an operand holds a NaN or an infinity, or there is no operand.
        """
        if isinstance(self.geometry, MatmulGeometry):
            return self._matmul_counts()
        return self._conv_counts(self.geometry)

    def _named_present(self) -> list[tuple[str, Any]]:
        return list(zip(self.kind.operands, self._present(), strict=True))

    def _present(self) -> tuple[Any, Any]:
        if self.first is None:
            raise ValueError(f"{self._where}: this needs the operands, which are None")
        return self.first, self.second

    def _mask(self, name: str, value: Any) -> np.ndarray:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            finite = bool(torch.isfinite(value).all())
            mask = (value != 0).numpy()
        else:
            value = np.asarray(value)
            finite = bool(np.isfinite(value).all())
            mask = value != 0
        if not finite:
            raise ValueError(f"{self._where}: {name} holds a NaN or an infinity")
        return mask

    def _matmul_counts(self) -> ProductCounts:
        """Pairs with equal summation index; all of them are valid."""
        first, second = self.masks
        if self.kind is Product.FORWARD:  # X[m,i] meets W[n,i]
            left, right = first.sum(0), second.sum(0)
        elif self.kind is Product.INPUT_GRAD:  # G[m,n] meets W[n,i]
            left, right = first.sum(0), second.sum(1)
        else:  # G[m,n] meets X[m,i]
            left, right = first.sum(1), second.sum(1)
        valid = int(left.astype(np.int64) @ right.astype(np.int64))
        return ProductCounts(nonzero=valid, valid=valid)

    def _conv_counts(self, geometry: Conv2dGeometry) -> ProductCounts:
        """Counts of a convolution from planes of per-position non-zero counts.

        Each product shares one channel-like index between its operands (c, k or n) and
        leaves one free on each side; summing the masks over the free ones first leaves
        one small plane per shared index.
        """
        g, n = geometry.groups, geometry.batch
        c, k = geometry.in_channels // g, geometry.out_channels // g
        mask = dict(zip(self.kind.operands, self.masks, strict=True))
        grouped = {
            "input": (n, g, c, geometry.height, geometry.width),
            "weight": (g, k, c, *geometry.kernel),
            "grad_output": (n, g, k, geometry.out_height, geometry.out_width),
        }
        # Axes summed away per operand; left is (shared index..., rows, columns).
        summed = {
            Product.FORWARD: {"input": 0, "weight": 1},
            Product.INPUT_GRAD: {"grad_output": 0, "weight": 2},
            Product.WEIGHT_GRAD: {"grad_output": 2, "input": 2},
        }[self.kind]
        planes = {}
        for name, axis in summed.items():
            values = mask[name].reshape(grouped[name]).sum(axis, dtype=np.int64)
            planes[name] = values.reshape(-1, *values.shape[-2:])
        left, right = (planes[name].sum((1, 2)) for name in self.kind.operands)
        nonzero = int(left @ right)
        ones = np.ones((1, *self.result_shape[-2:]), np.int64)
        planes[self.kind.absent] = ones
        valid = _meetings(
            planes["input"], planes["weight"], planes["grad_output"], geometry
        )
        return ProductCounts(nonzero=nonzero, valid=valid)


def _meetings(
    image: np.ndarray, taps: np.ndarray, output: np.ndarray, geometry: Conv2dGeometry
) -> int:
    """Sum of image[y]·taps[r]·output[o] over all (y, r, o) that meet, over planes.

    Args:
        image: counts of shape (planes or 1, H, W).
        taps: counts of shape (planes or 1, R, S).
        output: counts of shape (planes or 1, Ho, Wo).
        geometry: relates y, r and o; its channels and batch are not used.
    """
    (py, px), (ty, tx), (dy, dx) = geometry.padding, geometry.stride, geometry.dilation
    padded = np.pad(image, ((0, 0), (py, py), (px, px)))
    rows, columns = geometry.out_height, geometry.out_width
    total = 0
    for r in range(geometry.kernel[0]):
        for s in range(geometry.kernel[1]):
            window = padded[
                :,
                r * dy : r * dy + (rows - 1) * ty + 1 : ty,
                s * dx : s * dx + (columns - 1) * tx + 1 : tx,
            ]
            per_plane = (window * output).sum((1, 2))
            total += int((per_plane * taps[:, r, s]).sum())
    return total
