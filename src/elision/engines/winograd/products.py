"""The three products of a convolution by Winograd's transforms, with torch operations.

Of a tile ``d`` of the input, a filter ``g`` and a tile ``e`` of the gradient of the output::

    V = Bᵀ d B      U = G g Gᵀ      Z = A e Aᵀ

    Y  tile = Aᵀ [Σ_c U ⊙ V] A
    dX tile = B  [Σ_k U ⊙ Z] Bᵀ        overlapping tiles are added
    dW      = Gᵀ [Σ_tiles V ⊙ Z] G

The gradients are the adjoints of the forward product (Lavin and Gray, arXiv 1509.09308,
has the forward one), so all three take the same number of multiplications. This is the
oracle of the native kernel, and no fast path itself.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.common.checks import integer
from elision.engines.winograd.cook_toom import Transforms, transforms
from elision.engines.winograd.parts import Part, parts_of
from elision.products import Conv2dGeometry, LayerProduct, Product

__all__ = ["compute", "tile_transforms"]


def tile_transforms(m: int, taps: tuple[int, int]) -> tuple[Transforms, Transforms]:
    """The transforms of both axes; an axis of one tap has tiles of one output.

    F(m, 1) would save nothing and cost precision.

    Example:
        >>> [t.products for t in tile_transforms(4, (1, 3))]
        [1, 6]
    """
    vertical, horizontal = (transforms(m if r > 1 else 1, r) for r in taps)
    return vertical, horizontal


def compute(
    product: LayerProduct, m: int, storage: torch.dtype | None = None
) -> Tensor:
    """One product of a 2-D convolution by F(m, r), tiles of ``m x m`` outputs.

    Args:
        product: with torch operands; any kernel, padding and groups, and either strides
            or dilation on an axis.
        m: outputs of a tile along each axis, >= 1.
        storage: dtype that everything written between the stages (``U``, ``V``, ``Z``,
            their products and the result) is rounded to; sums are made in the operands'
            dtype. None: no rounding.

    Returns:
        ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype.

    Raises:
        ValueError: the layer is no 2-D convolution, an axis has a stride and a dilation
            above 1, the product has no operands, or ``m`` is not a positive integer.

    Example:
        >>> layer = Conv2dGeometry(1, 2, 5, 7, 3, kernel=3, padding=1)
        >>> x, w = torch.randn(1, 2, 5, 7).double(), torch.randn(3, 2, 3, 3).double()
        >>> forward = LayerProduct(Product.FORWARD, layer, x, w)
        >>> bool((compute(forward, 4) - forward.compute()).abs().max() < 1e-12)
        True
    """
    integer("winograd.compute", "m", m)
    geometry = product.geometry
    if not isinstance(geometry, Conv2dGeometry):
        raise ValueError(
            f"winograd.compute: {geometry.description} is no 2-D convolution"
        )
    if product.first is None:
        raise ValueError(f"winograd.compute: {product!r} has no operands")
    parts = [_Stages(geometry, part, m, storage) for part in parts_of(geometry)]
    return _PRODUCTS[product.kind](geometry, product.first, product.second, parts)


@dataclass
class _Stages:
    """The transforms of one part. Tensors of tiles: (n, n', N, groups, channels, tiles)."""

    geometry: Conv2dGeometry
    part: Part
    m: int
    storage: torch.dtype | None

    def __post_init__(self) -> None:
        self.by_axis = tile_transforms(self.m, self.part.taps)
        self.tiles = tuple(
            -(-size // t.outputs)
            for size, t in zip(self.part.outputs, self.by_axis, strict=True)
        )

    def stored(self, x: Tensor) -> Tensor:
        """Rounded as memory between two stages would."""
        return x if self.storage is None else x.to(self.storage).to(x.dtype)

    def _both(self, which: int, x: Tensor, transposed: bool = False) -> Tensor:
        """M x M'ᵀ on the last two axes, M the matrices of both axes."""
        first, second = (torch.from_numpy(t.arrays[which]).to(x) for t in self.by_axis)
        return first.mT @ x @ second if transposed else first @ x @ second.mT

    def _grouped(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.geometry.groups, -1))

    def _filled(self, sizes: tuple[int, ...], x: Tensor) -> Tensor:
        """Zeros below and to the right, up to whole tiles."""
        return F.pad(x, (0, sizes[1] - x.shape[-1], 0, sizes[0] - x.shape[-2]))

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of the input that whole tiles read."""
        v, h = (
            count * t.outputs + t.taps - 1
            for count, t in zip(self.tiles, self.by_axis, strict=True)
        )
        return v, h

    def data(self, x: Tensor) -> Tensor:
        """V, of the part's slice of the input."""
        v, h = self.by_axis
        x = self._filled(self.padded, x)
        x = x.unfold(2, v.products, v.outputs).unfold(3, h.products, h.outputs)
        return self._front(self._both(2, self._grouped(x)))

    def data_adjoint(self, dv: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Gradient of the slice from that of V: overlapping tiles added."""
        v, h = self.by_axis
        tile = self._both(2, self._back(dv), transposed=True).flatten(1, 2)
        columns = tile.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
        x = F.fold(
            columns,
            self.padded,
            (v.products, h.products),
            stride=(v.outputs, h.outputs),
        )
        return x[..., : sizes[0], : sizes[1]]

    def taps(self, w: Tensor) -> Tensor:
        """U, (n, n', groups, K/groups, C/groups)."""
        u = self._both(1, w.unflatten(0, (self.geometry.groups, -1)))
        return self.stored(u.movedim((-2, -1), (0, 1)))

    def taps_adjoint(self, du: Tensor) -> Tensor:
        """Gradient of the filters from that of U."""
        du = self.stored(du).movedim((0, 1), (-2, -1))
        return self._both(1, du, transposed=True).flatten(0, 1)

    def outputs(self, sums: Tensor) -> Tensor:
        """Y from the sums of products."""
        tile = self._both(0, self._back(sums)).flatten(1, 2)
        y = tile.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)
        return y[..., : self.part.outputs[0], : self.part.outputs[1]]

    def outputs_adjoint(self, g: Tensor) -> Tensor:
        """Z, of the part's slice of the gradient of the output."""
        v, h = self.by_axis
        whole = (self.tiles[0] * v.outputs, self.tiles[1] * h.outputs)
        g = self._filled(whole, g)
        g = g.unfold(2, v.outputs, v.outputs).unfold(3, h.outputs, h.outputs)
        return self._front(self._both(0, self._grouped(g), transposed=True))

    def _front(self, tile: Tensor) -> Tensor:
        """(N, groups, channels, rows, columns, n, n') with the tile's axes first."""
        return self.stored(tile.movedim((-2, -1), (0, 1)).flatten(-2))

    def _back(self, tile: Tensor) -> Tensor:
        return self.stored(tile).unflatten(-1, self.tiles).movedim((0, 1), (-2, -1))


_Parts = list[_Stages]


def _padded(geometry: Conv2dGeometry, x: Tensor) -> Tensor:
    vertical, horizontal = geometry.padding
    return F.pad(x, (horizontal, horizontal, vertical, vertical))


def _forward(geometry: Conv2dGeometry, x: Tensor, w: Tensor, parts: _Parts) -> Tensor:
    x = _padded(geometry, x)
    y = x.new_zeros(geometry.shape_of("grad_output"))
    for stages in parts:
        part = stages.part
        u = stages.taps(w[..., *part.weight])
        v = stages.data(x[..., *part.input])
        sums = torch.einsum("ijgkc,ijngct->ijngkt", u, v)
        y[..., *part.output] += stages.outputs(sums)
    return _rounded(y, parts)


def _input_grad(
    geometry: Conv2dGeometry, g: Tensor, w: Tensor, parts: _Parts
) -> Tensor:
    dx = _padded(geometry, g.new_zeros(geometry.shape_of("input")))
    for stages in parts:
        part = stages.part
        u = stages.taps(w[..., *part.weight])
        z = stages.outputs_adjoint(g[..., *part.output])
        dv = torch.einsum("ijgkc,ijngkt->ijngct", u, z)
        into = dx[..., *part.input]
        own = stages.data_adjoint(dv, tuple(into.shape[-2:]))
        into[..., : own.shape[-2], : own.shape[-1]] += own
    vertical, horizontal = geometry.padding
    end = (vertical + geometry.height, horizontal + geometry.width)
    return _rounded(dx[..., vertical : end[0], horizontal : end[1]], parts)


def _weight_grad(
    geometry: Conv2dGeometry, g: Tensor, x: Tensor, parts: _Parts
) -> Tensor:
    x = _padded(geometry, x)
    dw = x.new_zeros(geometry.shape_of("weight"))
    for stages in parts:
        part = stages.part
        z = stages.outputs_adjoint(g[..., *part.output])
        v = stages.data(x[..., *part.input])
        du = torch.einsum("ijngkt,ijngct->ijgkc", z, v)
        dw[..., *part.weight] += stages.taps_adjoint(du)
    return _rounded(dw, parts)


def _rounded(result: Tensor, parts: _Parts) -> Tensor:
    return parts[0].stored(result)


_PRODUCTS = {
    Product.FORWARD: _forward,
    Product.INPUT_GRAD: _input_grad,
    Product.WEIGHT_GRAD: _weight_grad,
}
