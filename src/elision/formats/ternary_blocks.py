"""A matrix as a sum of ternary terms, one scale for each block of a row.

A row of weights is cut into blocks of ``N``; the last may be shorter. A block is
``Σ_r α_r·t_r`` with ``t_r`` in {−1, 0, 1}ᴺ: the first term is the nearest ternary vector
with a free scale, every further one that of what the terms before it left over. So the
terms of a block are nested, and any number of the last ones can be left out at any time.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.common.checks import one_of
from elision.formats.floating import Floating
from elision.formats.projections import ternary

__all__ = [
    "SCALE",
    "TernaryBlocks",
    "counts_of_best",
    "rows_of",
    "ternary_blocks",
    "weight_of",
]

#: A scale in 8 bits, relative to the largest of its matrix: the published sizes count 8
#: bits a scale, without saying which. Scales are positive and those of later terms fall
#: by powers, so an own choice: no sign, 4 exponent bits, 4 fraction bits.
SCALE = Floating("scale", 4, 4, bias=15, specials="nan", signed=False, saturates=True)


def rows_of(weight: Tensor) -> Tensor:
    """A weight as rows whose neighbours share a place of the kernel.

    Args:
        weight: ``(K, C/groups, R, S)`` or ``(columns, inner)``.

    Returns:
        ``(K, R·S·C/groups)``, channels innermost, so that a block of 64 of a layer with
        64 channels is one tap of a filter; or the weight itself.

    Example:
        >>> rows_of(torch.arange(8).view(1, 2, 2, 2)).tolist()
        [[0, 4, 1, 5, 2, 6, 3, 7]]
    """
    return weight.movedim(1, -1).flatten(1)


def weight_of(rows: Tensor, shape: torch.Size) -> Tensor:
    """The weight of a shape that has these rows; the inverse of :func:`rows_of`.

    Example:
        >>> weight = torch.randn(2, 3, 1, 2)
        >>> torch.equal(weight_of(rows_of(weight), weight.shape), weight)
        True
    """
    return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class TernaryBlocks:
    """A matrix of ``K`` rows in ``B`` blocks of ``N``, as up to ``T`` ternary terms each.

    Attributes:
        codes: ``(T, K, B, N)`` int8 in {−1, 0, 1}; zero beyond the end of a row.
        scales: ``(T, K, B)`` float, not negative.
        columns: length of a row; ``B = ceil(columns / N)``.
        unit: what :data:`SCALE` codes of the scales are relative to; 0: the scales have
            the digits of the matrix.

    Example:
        >>> terms = ternary_blocks(torch.tensor([[3.0, -1.0, 0.5, -4.0]]), 4, terms=2)
        >>> terms.decode(torch.tensor([[1]])).tolist()
        [[3.5, 0.0, 0.0, -3.5]]
        >>> terms.decode().tolist()  # what was left over: (-0.5, -1, 0.5, -0.5)
        [[2.875, -0.625, 0.625, -4.125]]
    """

    codes: Tensor
    scales: Tensor
    columns: int
    unit: float = 0.0

    @property
    def terms(self) -> int:
        """Largest number of terms of a block, ``T``."""
        return len(self.codes)

    @property
    def block(self) -> int:
        """Values of a block, ``N``."""
        return self.codes.shape[-1]

    @property
    def nonzeros(self) -> Tensor:
        """Values that are not zero, of each term of each block, int64 ``(T, K, B)``."""
        return self.codes.count_nonzero(-1)

    @property
    def removed(self) -> Tensor:
        """Squared error that each term removes, ``(T, K, B)`` float64.

        ``α²·‖t‖²``: a term's scale is the mean of the magnitudes that it keeps, so what
        is left over is orthogonal to it (to the rounding of an 8-bit scale). Known from
        the codes and scales alone, so that a file need not hold it.
        """
        return self.scales.double() ** 2 * self.nonzeros

    @property
    def gains(self) -> Tensor:
        """Worth of each residual term in a greedy choice, ``(T − 1, K, B)`` float64.

        The error that it removes, but no more than any residual term before it in its
        block: sorted by it, stably, every block's terms stand in their order, and each
        place is that of the largest error that can be removed next.
        """
        return self.removed[1:].cummin(0).values if self.terms > 1 else self.removed[1:]

    def decode(self, counts: Tensor | None = None) -> Tensor:
        """The matrix ``(K, columns)`` that the first terms of each block make.

        Args:
            counts: terms of each block, ``(K, B)`` integers; None: all.
        """
        scales = self.scales if counts is None else self.enabled(counts).scales
        total = torch.zeros_like(self.codes[0], dtype=scales.dtype)
        for codes, scale in zip(self.codes, scales, strict=True):
            total += codes * scale[..., None]
        return total.flatten(1)[:, : self.columns]

    def enabled(self, counts: Tensor) -> "TernaryBlocks":
        """These blocks with scale 0 in every term beyond a block's count."""
        places = torch.arange(self.terms, device=counts.device).view(-1, 1, 1)
        return replace(self, scales=torch.where(places < counts, self.scales, 0))

    def first(self, terms: int) -> "TernaryBlocks":
        """These blocks with no more than so many terms."""
        return replace(self, codes=self.codes[:terms], scales=self.scales[:terms])


def ternary_blocks(
    matrix: Tensor,
    block: int = 64,
    terms: int = 2,
    scales: Literal["exact", "8-bit"] = "exact",
    threshold: Literal["exact", "twn"] = "exact",
) -> TernaryBlocks:
    """The ternary terms of a matrix, block by block.

    Args:
        matrix: ``(K, columns)``, finite; see :func:`rows_of`.
        block: values that share a scale, at least 1; of a shorter row, all of them.
        terms: of every block, at least 1.
        scales: ``"exact"`` or rounded to :data:`SCALE` before the next term is found, so
            that the next term takes up the error of rounding, too.
        threshold: see :func:`elision.formats.projections.ternary`.

    Raises:
        ValueError: an unknown kind of scales or threshold.

    Source: Kundu et al., Ternary Residual Networks, arXiv 1707.04679.

    Example:
        >>> matrix = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
        >>> errors = [
        ...     (ternary_blocks(matrix, 64, n).decode() - matrix).norm() / matrix.norm()
        ...     for n in (1, 2, 3)
        ... ]
        >>> errors[0] > errors[1] > errors[2]
        tensor(True)
    """
    # Callers check the numbers once: this runs in every step, inside compiled graphs.
    one_of("ternary_blocks", "scales", scales, ("exact", "8-bit"))
    rows, columns = matrix.shape
    block = max(1, min(block, columns))
    blocks = -(-columns // block)
    rest = F.pad(matrix, (0, blocks * block - columns)).view(rows * blocks, block)
    unit = 0.0
    found_codes, found_scales = [], []
    for _ in range(terms):
        codes, scale = ternary(rest, threshold)
        if scales == "8-bit":
            if not unit and scale.numel():  # later scales are smaller than these
                # With the digits of float32, which a scale's product is rounded to.
                unit = (scale.max().float() / SCALE.largest).item()
            if unit:
                scale = (SCALE.round(scale / unit) * unit).to(scale.dtype)
            codes = torch.where(scale > 0, codes, 0)
        rest = rest - scale * codes
        found_codes.append(codes.to(torch.int8).view(rows, blocks, block))
        found_scales.append(scale.view(rows, blocks))
    return TernaryBlocks(
        torch.stack(found_codes), torch.stack(found_scales), columns, unit
    )


def counts_of_best(gains: Tensor, residuals: int) -> Tensor:
    """Terms of each block, if so many residual terms are given greedily.

    Args:
        gains: ``(T − 1, K, B)``; see :attr:`TernaryBlocks.gains`.
        residuals: residual terms given to all blocks together; those that remove
            nothing are never given.

    Returns:
        ``(K, B)`` int64, at least 1.

    Example:
        >>> gains = torch.tensor([[[4.0, 1.0]], [[2.0, 0.5]]])
        >>> counts_of_best(gains, 2).tolist()
        [[3, 1]]
    """
    flat = gains.flatten()
    order = flat.sort(descending=True, stable=True).indices[:residuals]
    given = torch.zeros_like(flat, dtype=torch.bool)
    given[order] = flat[order] > 0
    return 1 + given.view(gains.shape).sum(0)
