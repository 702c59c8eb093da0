"""Exact numbers of non-zero, valid and redundant products, without enumerating pairs.

A product fixes two of the three tensors and sums over the index tuples that they can
form (:mod:`elision.products.geometry`); the tensor that is absent is, for counting, all
ones.
"""

from dataclasses import dataclass

import numpy as np

from elision.products.geometry import Conv2dGeometry

__all__ = ["ProductCounts", "meetings"]


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


def meetings(
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
