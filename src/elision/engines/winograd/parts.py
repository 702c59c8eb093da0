"""A convolution with strides or dilation as a sum of dense ones on slices of its tensors.

Stride ``t`` splits input and filter by the remainder modulo ``t``: tap ``r = t·a + b``
reads input ``t·(o + a) + b``, so that the taps of one ``b`` are a convolution of stride 1.
Dilation ``d`` splits input and output: outputs of one remainder read only inputs of it.
Every part reads and writes slices, so the gradients split in the same way.
"""

import itertools
from dataclasses import dataclass

from elision.products import Conv2dGeometry

__all__ = ["Part", "parts_of"]

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Part:
    """One convolution of stride and dilation 1, without padding.

    Attributes:
        input: rows and columns of the padded input.
        weight: of the kernel.
        output: of the output.
        taps: kernel of the part.
        outputs: rows and columns of its output.

    Example:
        >>> layer = Conv2dGeometry(1, 4, 9, 9, 4, kernel=3, stride=2)
        >>> [part.taps for part in parts_of(layer)]
        [(2, 2), (2, 1), (1, 2), (1, 1)]
    """

    input: Slices
    weight: Slices
    output: Slices
    taps: tuple[int, int]
    outputs: tuple[int, int]


def parts_of(geometry: Conv2dGeometry) -> list[Part]:
    """The parts of a convolution, whose sum it is.

    Args:
        geometry: of the convolution, whose stride or dilation is taken apart.

    Raises:
        ValueError: an axis has both a stride and a dilation above 1, for which a part is
            no dense convolution.
    """
    axes = [_parts_of_axis(geometry, axis) for axis in range(2)]
    return [
        Part(
            input=(v[0], h[0]),
            weight=(v[1], h[1]),
            output=(v[2], h[2]),
            taps=(v[3], h[3]),
            outputs=(v[4], h[4]),
        )
        for v, h in itertools.product(*axes)
    ]


def _parts_of_axis(
    geometry: Conv2dGeometry, axis: int
) -> list[tuple[slice, slice, slice, int, int]]:
    taps, stride = geometry.kernel[axis], geometry.stride[axis]
    dilation, outputs = geometry.dilation[axis], geometry.out_sizes[axis]
    if taps == 1:
        dilation = 1
    if stride > 1 and dilation > 1:
        raise ValueError(
            f"winograd: stride {geometry.stride} with dilation {geometry.dilation} on one "
            "axis does not split into dense convolutions; one of them must be 1"
        )
    everything = slice(None)
    found = []
    if dilation > 1:
        for phase in range(min(dilation, outputs)):
            count = -(-(outputs - phase) // dilation)
            end = phase + dilation * (count + taps - 2) + 1
            every = slice(phase, end, dilation)
            found.append((every, everything, slice(phase, None, dilation), taps, count))
    else:
        for phase in range(min(stride, taps)):
            count = -(-(taps - phase) // stride)
            end = phase + stride * (outputs + count - 2) + 1
            found.append(
                (
                    slice(phase, end, stride),
                    slice(phase, None, stride),
                    everything,
                    count,
                    outputs,
                )
            )
    return found
