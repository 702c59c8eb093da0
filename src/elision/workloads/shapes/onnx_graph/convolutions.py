"""Convolutions and transposed ones, with every way in which ONNX says their padding."""

from collections.abc import Callable, Sequence
from typing import Any

from elision.products import Conv2dGeometry, Conv3dGeometry, ConvTranspose2dGeometry
from elision.workloads.shapes.onnx_graph.operation import (
    Operation,
    Products,
    Sizes,
    UnreadError,
    misfit,
)

__all__ = ["convolution", "transposed_convolution"]


def convolution(weight: int) -> Callable[[Operation], Products]:
    """The reader of a convolution whose weight is input number ``weight``."""

    def read(node: Operation) -> Products:
        entry, taps = node.shape(0), node.shape(weight)
        rank, groups = len(entry) - 2, node.attributes.get("group", 1)
        if len(taps) != len(entry) or entry[1] != taps[1] * groups:
            raise misfit(entry, taps)
        stride, dilation = (
            node.numbers(name, (1,) * rank) for name in ("strides", "dilations")
        )
        begins, ends = _padding(node, entry[2:], taps[2:], stride, dilation)
        if begins != ends or min(begins, default=0) < 0:
            # As for models: without padding, on the padded image.
            sizes = zip(entry[2:], begins, ends, strict=True)
            entry = (*entry[:2], *(sum(size) for size in sizes))
            begins = (0,) * rank
        how: dict[str, Any] = {
            "stride": stride,
            "padding": begins,
            "dilation": dilation,
            "groups": groups,
        }
        if rank == 1:
            entry, taps = _of_height_1(entry), _of_height_1(taps)
            how |= {"stride": (1, *stride), "dilation": (1, *dilation)}
            how["padding"] = (0, *begins)
        elif rank == 3:
            return [("", Conv3dGeometry.of(entry, taps, **how))]
        elif rank != 2:
            raise UnreadError(f"over {rank} axes")
        return [("", Conv2dGeometry.of(entry, taps, **how))]

    return read


def _of_height_1(shape: Sizes) -> Sizes:
    return (*shape[:2], 1, *shape[2:])


def _padding(
    node: Operation, sizes: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes
) -> tuple[Sizes, Sizes]:
    """Zeros before and after each axis; SAME gives ``ceil(size / stride)`` outputs."""
    mode = node.attributes.get("auto_pad", b"NOTSET")
    if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
        return _given(node, mode, len(sizes))
    totals = [
        max((-(-size // step) - 1) * step + apart * (taps - 1) + 1 - size, 0)
        for size, taps, step, apart in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    return _halves(totals, more_at_the_end=mode == b"SAME_UPPER")


def _given(node: Operation, mode: bytes, rank: int) -> tuple[Sizes, Sizes]:
    zeros = (0,) * (2 * rank)
    pads = zeros if mode == b"VALID" else node.numbers("pads", zeros)
    return pads[:rank], pads[rank:]


def _halves(totals: Sequence[int], more_at_the_end: bool) -> tuple[Sizes, Sizes]:
    less = tuple(total // 2 for total in totals)
    more = tuple(total - total // 2 for total in totals)
    return (less, more) if more_at_the_end else (more, less)


def transposed_convolution(node: Operation) -> Products:
    """``ConvTranspose``; an uneven cut of its output leaves the products of the whole."""
    entry, taps = node.shape(0), node.shape(1)
    rank, groups = len(entry) - 2, node.attributes.get("group", 1)
    if len(taps) != len(entry) or entry[1] != taps[0]:
        raise misfit(entry, taps)
    stride, dilation = (
        node.numbers(name, (1,) * rank) for name in ("strides", "dilations")
    )
    extra = node.numbers("output_padding", (0,) * rank)
    begins, ends = _cut(node, entry[2:], taps[2:], stride, dilation, extra)
    if rank == 1:
        entry, taps = _of_height_1(entry), _of_height_1(taps)
        stride, dilation = (1, *stride), (1, *dilation)
        begins, ends, extra = (0, *begins), (0, *ends), (0, *extra)
    elif rank != 2:
        raise UnreadError(f"over {rank} axes")
    how: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    even = begins == ends and min(begins) >= 0
    if even and all(e < s for e, s in zip(extra, stride, strict=True)):
        how |= {"padding": begins, "output_padding": extra}
        return [("", ConvTranspose2dGeometry.of(entry, taps, **how))]
    # The products of the whole output, before anything is cut off or added.
    return [("", ConvTranspose2dGeometry.of(entry, taps, **how))]


def _cut(
    node: Operation,
    sizes: Sizes,
    kernel: Sizes,
    stride: Sizes,
    dilation: Sizes,
    extra: Sizes,
) -> tuple[Sizes, Sizes]:
    """What a transposed convolution cuts off its output, before and after each axis."""
    mode = node.attributes.get("auto_pad", b"NOTSET")
    wanted = node.numbers("output_shape", ())[-len(sizes) :]
    if mode in (b"SAME_UPPER", b"SAME_LOWER") and not wanted:
        wanted = tuple(n * step for n, step in zip(sizes, stride, strict=True))
    if not wanted:
        return _given(node, mode, len(sizes))
    totals = [
        step * (size - 1) + more + apart * (taps - 1) + 1 - outputs
        for size, taps, step, apart, more, outputs in zip(
            sizes, kernel, stride, dilation, extra, wanted, strict=True
        )
    ]
    return _halves(totals, more_at_the_end=mode == b"SAME_UPPER")
