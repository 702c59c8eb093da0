"""One axis of a convolution: which places of its three tensors meet.

Pixel ``h``, tap ``r`` and output ``o`` meet iff ``h = o·t − p + r·d``, each within its own
range. Where one of the three tensors is all ones, as every tensor is that a product does
not read, sums over the places that meet separate by axis.
"""

from typing import Any, NamedTuple

import numpy as np

from elision.products.convolution import Convolution

__all__ = ["Axis", "axes_of"]


class Axis(NamedTuple):
    """One axis of a convolution.

    Example:
        >>> Axis(pixels=5, outputs=3, taps=3, stride=2, padding=1, dilation=1).meeting(0)
        (slice(1, 3, None), slice(1, 4, 2))
    """

    pixels: int
    outputs: int
    taps: int
    stride: int
    padding: int
    dilation: int

    def size(self, tensor: str) -> int:
        """Places of the input, the weight or the output's gradient along the axis."""
        places = {"input": "pixels", "weight": "taps", "grad_output": "outputs"}
        return getattr(self, places[tensor])

    def meeting(self, tap: int) -> tuple[slice, slice]:
        """The outputs, and the pixels in the same order, that meet at a tap."""
        shift = tap * self.dilation - self.padding
        first = max(-(shift // self.stride), 0)
        last = min((self.pixels - 1 - shift) // self.stride, self.outputs - 1)
        if last < first:
            return slice(0, 0), slice(0, 0)
        begin, end = (output * self.stride + shift for output in (first, last))
        return slice(first, last + 1), slice(begin, end + 1, self.stride)

    def sums(self, values: np.ndarray, index: int, of: str, to: str) -> np.ndarray:
        """Sums, along one axis of an array, of what meets each place of another tensor.

        Args:
            values: of the tensor ``of``, along axis ``index`` of the array.
            index: that axis; in the result it runs over the places of ``to``.
            of: ``"input"``, ``"weight"`` or ``"grad_output"``.
            to: another of them. The third one is all ones.
        """
        values = np.moveaxis(values, index, -1)
        result = np.zeros((*values.shape[:-1], self.size(to)), np.int64)
        for tap in range(self.taps):
            outputs, pixels = self.meeting(tap)
            at = {"input": pixels, "grad_output": outputs}
            if to == "weight":
                result[..., tap] = values[..., at[of]].sum(-1)
            elif of == "weight":
                result[..., at[to]] += values[..., tap, None]
            else:
                result[..., at[to]] += values[..., at[of]]
        return np.moveaxis(result, -1, index)


def axes_of(geometry: Convolution[Any]) -> list[Axis]:
    """The axes of the image, from first to last."""
    return [
        Axis(*sizes)
        for sizes in zip(
            geometry.sizes,
            geometry.out_sizes,
            geometry.kernel,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            strict=True,
        )
    ]
