"""A pruned weight as its surviving values and their places: CSR, bitmap.

The weight is a matrix of one row an output: ``(K, C/g, R, S)`` has ``K`` rows. A fault in
a place moves a value; the values themselves are stored in any format.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elision.faults.stored.base import Part, Stored

__all__ = ["Bitmap", "Csr"]

Store = Callable[[Tensor], Stored]


@dataclass(frozen=True)
class _Sparse(Stored):
    """Surviving values, packed row by row, and parts that say where they stand.

    Attributes:
        packed: stored form of the values, ``(nnz,)``; its parts are among ``parts``.
        shape: of the tensor.
    """

    packed: Stored
    shape: torch.Size

    @abstractmethod
    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and numbers of the packed values that are read."""

    def values(self) -> Tensor:
        """The tensor; what stands twice in one place is added, as a product does."""
        own = {name: self.parts[name] for name in self.packed.parts}
        values = replace(self.packed, parts=own).values()
        rows, columns, number = self._places()
        # What is read beyond the last value is 0, what is placed beyond a row nowhere.
        padded = torch.cat([values, values.new_zeros(1)])
        read = padded[number.clamp(0, len(values))]
        height, width = _matrix(self.shape)
        inside = (columns >= 0) & (columns < width)
        flat = values.new_zeros(height * width)
        flat.index_add_(0, (rows * width + columns)[inside], read[inside])
        return flat.view(self.shape)


@dataclass(frozen=True)
class Csr(_Sparse):
    """Compressed sparse rows: a column a value, and where each row begins.

    The parts are those of the values, ``columns`` of 16 bits (32 where a row is longer)
    and ``rows`` of 32 bits, ``K + 1`` of them. A row whose beginning moved reads the
    values between its two pointers; a column beyond the row is placed nowhere.

    Example:
        >>> from elision.faults.stored.plain import Native
        >>> x = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
        >>> held = Csr.of(x, Native.of)
        >>> {name: part.size_bits for name, part in held.parts.items()}
        {'values': 64, 'columns': 32, 'rows': 96}
        >>> held.changed("columns", [0], [0]).values()
        tensor([[2., 0.],
                [3., 0.]])
    """

    @staticmethod
    def of(x: Tensor, store: Store) -> "Csr":
        """The non-zero values of ``x``; ``store`` gives their stored form."""
        matrix = x.detach().reshape(_matrix(x.shape))
        kept = matrix != 0
        columns = kept.nonzero()[:, 1]
        packed = store(matrix[kept])
        starts = torch.cat([torch.zeros(1, dtype=torch.long), kept.sum(1).cumsum(0)])
        wide = 16 if matrix.shape[1] <= 2**16 else 32
        parts = {
            **packed.parts,
            "columns": Part(columns, wide),
            "rows": Part(starts, 32),
        }
        return Csr(parts, x.dtype, packed, x.shape)

    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        columns, starts = self.parts["columns"].words, self.parts["rows"].words
        starts = starts.clamp(0, len(columns))
        lengths = (starts[1:] - starts[:-1]).clamp(min=0)
        rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        first = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        number = torch.arange(len(rows)) - first[rows] + starts[:-1][rows]
        return rows, columns[number], number


@dataclass(frozen=True)
class Bitmap(_Sparse):
    """A bit a place, and where the values of each row begin.

    The parts are those of the values, ``bitmap`` of one bit and ``rows`` of 32 bits, ``K``
    of them. A bit that flips moves all later values of its row by one.

    Example:
        >>> from elision.faults.stored.plain import Native
        >>> held = Bitmap.of(torch.tensor([[0.0, 2.0, 3.0]]), Native.of)
        >>> held.changed("bitmap", [0], [0]).values()
        tensor([[2., 3., 0.]])
    """

    @staticmethod
    def of(x: Tensor, store: Store) -> "Bitmap":
        """The non-zero values of ``x``; ``store`` gives their stored form."""
        matrix = x.detach().reshape(_matrix(x.shape))
        kept = matrix != 0
        packed = store(matrix[kept])
        starts = kept.sum(1).cumsum(0) - kept.sum(1)
        parts = {
            **packed.parts,
            "bitmap": Part(kept.to(torch.uint8), 1),
            "rows": Part(starts, 32),
        }
        return Bitmap(parts, x.dtype, packed, x.shape)

    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        bits, starts = self.parts["bitmap"].words, self.parts["rows"].words
        rows, columns = bits.nonzero(as_tuple=True)
        before = (bits.long().cumsum(1) - bits.long())[rows, columns]
        return rows, columns, starts[rows] + before


def _matrix(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of a weight: one row an output."""
    if len(shape) < 2:
        return 1, shape.numel()
    return shape[0], shape.numel() // max(shape[0], 1)
