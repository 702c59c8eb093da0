"""Enumerations, obviously right and slow, that the closed forms are tested against."""

import numpy as np
from hypothesis import strategies as st

from elision.accelerators.outer.planes import Axis, OuterProduct, planes_of
from elision.products import OPERANDS, Conv2dGeometry, LayerProduct, Product
from elision.products.canonical import canonical_geometry


def ceil_div(a, b):
    return -(-a // b)


def random_product(rng, kind, geometry, density=0.3):
    """A layer product with integer values, of which ``density`` are non-zero."""
    operands = {}
    for name in OPERANDS:
        shape = geometry.shape_of(name)
        values = rng.integers(1, 9, shape) * (rng.random(shape) < density)
        operands[name] = values.astype(np.float32)
    return LayerProduct(kind, geometry, *(operands[name] for name in kind.operands))


def is_valid(y, r, axis: Axis) -> bool:
    """The definition: the product of image coordinate y and kernel coordinate r."""
    distance = y - r
    return distance % axis.stride == 0 and 0 <= distance // axis.stride < axis.outputs


def coordinates(plane, row_step, row_offset, column_step, column_offset):
    return [
        (row_step * int(i) + row_offset, column_step * int(j) + column_offset)
        for i, j in zip(*np.nonzero(plane), strict=True)
    ]


def pairs(outer: OuterProduct):
    """Coordinates of the non-zeros of every image and kernel plane that meet."""
    rows, columns = outer.rows, outer.columns
    for images, kernels in zip(outer.images, outer.kernels, strict=True):
        for image in images:
            left = coordinates(
                image,
                rows.image_step,
                rows.image_offset,
                columns.image_step,
                columns.image_offset,
            )
            for kernel in kernels:
                right = coordinates(kernel, rows.kernel_step, 0, columns.kernel_step, 0)
                yield left, right


def count_by_pairs(product: LayerProduct) -> tuple[int, int]:
    """Non-zero and valid products, one by one."""
    outer = planes_of(product)
    assert isinstance(outer, OuterProduct)
    nonzero = valid = 0
    for left, right in pairs(outer):
        for y, x in left:
            for r, s in right:
                nonzero += 1
                valid += is_valid(y, r, outer.rows) and is_valid(x, s, outer.columns)
    return nonzero, valid


def scnn_by_pairs(product: LayerProduct, n: int) -> int:
    """Busy cycles of the plane-pair SCNN without start-up."""
    return sum(
        ceil_div(len(left), n) * ceil_div(len(right), n)
        for left, right in pairs(planes_of(product))
    )


def ant_by_pairs(product: LayerProduct, n: int, window: int, group: int):
    """ANT's busy cycles by scan and by closed form, and the set of products issued.

    Returns:
        (scan cycles, closed-form cycles, products issued, valid ones among them).
    """
    outer = planes_of(product)
    rows, columns = outer.rows, outer.columns
    row_indices, column_indices = outer.kernels.shape[2:]
    scan = closed = issued = valid = 0
    for left, right in pairs(outer):
        for begin in range(0, len(left), group):
            values = left[begin : begin + group]
            ys, xs = zip(*values, strict=True)
            r_low, r_high = rows.reach(min(ys), max(ys))
            s_low, s_high = columns.reach(min(xs), max(xs))

            def row_fits(r, low=r_low, high=r_high):
                return low <= r <= high

            def column_fits(s, low=s_low, high=s_high):
                return low <= s <= high

            # No index at all in range: the unit has nothing to look at.
            if not any(row_fits(rows.kernel_step * i) for i in range(row_indices)):
                continue
            if not any(
                column_fits(columns.kernel_step * i) for i in range(column_indices)
            ):
                continue
            candidates = [(r, s) for r, s in right if row_fits(r)]
            chosen = [(r, s) for r, s in candidates if column_fits(s)]
            vectors = ceil_div(len(values), n)
            closed += vectors * max(
                ceil_div(len(chosen), n), ceil_div(len(candidates), window)
            )
            position = 0
            while position < len(candidates):
                scan += vectors
                seen = candidates[position : position + window]
                hits = [i for i, (_, s) in enumerate(seen) if column_fits(s)]
                position += hits[n - 1] + 1 if len(hits) >= n else window
            issued += len(values) * len(chosen)
            valid += sum(
                is_valid(y, r, rows) and is_valid(x, s, columns)
                for y, x in values
                for r, s in chosen
            )
    return scan, closed, issued, valid


#: Convolutions that between them use every feature of the geometry, small on purpose.
GEOMETRIES = {
    "same": Conv2dGeometry(2, 3, 7, 6, 4, 3, 1, 1),
    "valid": Conv2dGeometry(1, 2, 6, 5, 2, (3, 2)),
    "stride": Conv2dGeometry(1, 2, 8, 9, 3, 3, 2, 1),
    "stride with a rest": Conv2dGeometry(2, 2, 8, 7, 2, 3, 3, 0),
    "dilation": Conv2dGeometry(1, 2, 9, 8, 2, 3, 1, 2, 2),
    "stride and dilation": Conv2dGeometry(1, 2, 11, 10, 2, 3, 2, 2, 3),
    "uneven": Conv2dGeometry(1, 2, 9, 7, 2, (1, 3), (2, 1), (0, 2), (1, 2)),
    "pad larger than kernel": Conv2dGeometry(1, 2, 4, 4, 2, 2, 1, 3),
    "1x1": Conv2dGeometry(2, 3, 5, 5, 4, 1),
    "1x1 stride": Conv2dGeometry(1, 3, 7, 7, 4, 1, 2),
    "groups": Conv2dGeometry(2, 4, 6, 6, 6, 3, 1, 1, 1, 2),
    "depthwise": Conv2dGeometry(1, 4, 6, 6, 4, 3, 2, 1, 1, 4),
}

#: Those whose planes meet value by value; the others are matrix products.
PLANES = {
    name: geometry
    for name, geometry in GEOMETRIES.items()
    if isinstance(canonical_geometry(geometry), Conv2dGeometry)
}

KINDS = tuple(Product)


@st.composite
def geometries(draw):
    """Any small convolution: every parameter differs per axis."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups = draw(st.integers(1, 2))
    kernel, dilation, padding = pair(1, 3), pair(1, 3), pair(0, 3)
    room = [
        max(d * (k - 1) + 1 - 2 * p, 1)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    return Conv2dGeometry(
        batch=draw(st.integers(1, 2)),
        in_channels=groups * draw(st.integers(1, 2)),
        height=room[0] + draw(st.integers(0, 6)),
        width=room[1] + draw(st.integers(0, 6)),
        out_channels=groups * draw(st.integers(1, 2)),
        kernel=kernel,
        stride=pair(1, 3),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
