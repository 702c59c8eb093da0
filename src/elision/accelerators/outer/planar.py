"""The planar mapping of SCNN: image tiles on a grid of processing elements.

Every element owns one tile of the padded image plane. For each sample, group of filters
and input channel, all elements multiply the non-zeros of their own tile with the
non-zeros of the group's kernels, in vectors of ``lanes`` by ``lanes``: one vector pair
is one issue step. With stride ``t``, values meet in ``t·t`` residue classes, one after
the other. A step takes one cycle or, when conflicts are serialised, as many cycles as
there are valid products for the fullest of the accumulator banks. All elements wait for
the slowest at a barrier, after every channel or after every group of filters; at the
end of a filter group the halos are exchanged.

:class:`PlanarPlan` holds what follows from the shape, :func:`planar_counts` walks the
steps. The rules restate the SCNN mode of a public simulator (DNNsim) in our own words
and equal its figures; where it is silent or wrong (strides other than 1, accumulators
that overflow, weight gradients) they are this project's choices, marked so below.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from elision.accelerators.base import ceil_div
from elision.accelerators.compiled import compiled
from elision.accelerators.outer.planes import Axis, OuterProduct

__all__ = ["COUNTS", "PlanarPlan", "planar_counts", "walk"]

#: Counts of :func:`walk`: ``cycles`` without halo, ``steps`` issued, ``products`` in
#: them, ``valid`` ones, ``image_vectors``, ``conflict_cycles`` and ``idle_cycles``
#: summed over elements, and values read: ``image_reads``, ``kernel_reads``.
COUNTS = (
    "cycles",
    "steps",
    "products",
    "valid",
    "image_vectors",
    "conflict_cycles",
    "idle_cycles",
    "image_reads",
    "kernel_reads",
)


@dataclass(frozen=True)
class PlanarPlan:
    """Layout of the planes of one product on the grid.

    Attributes:
        rows, columns: coordinates of every pass, (vertical passes, horizontal passes).
            More than one pass only where a single filter's outputs of one tile overflow
            the accumulators; then the fewest equal ones that fit (an own choice).
        tile: pixels of each element, (rows, columns), in the largest pass.
        filters_at_once: filters whose outputs fit the accumulators, ``Kc``; one in a
            depthwise convolution.
        halo_area: outputs exchanged with the neighbour that shares most, per filter.

    Example:
        >>> from elision.accelerators.outer.scnn import Scnn
        >>> from elision.products import Conv2dGeometry, LayerProduct, Product
        >>> x, w = np.ones((1, 1, 16, 16)), np.ones((2, 1, 3, 3))
        >>> geometry = Conv2dGeometry(1, 1, 16, 16, 2, 3, 1, 1)
        >>> plan = Scnn().plan(LayerProduct(Product.FORWARD, geometry, x, w))
        >>> plan.passes, plan.tile
        (1, (3, 3))
    """

    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    tile: tuple[int, int]
    filters_at_once: int
    halo_area: int

    @property
    def passes(self) -> int:
        """Parts into which the output plane is cut."""
        return len(self.rows) * len(self.columns)

    @classmethod
    def of(
        cls,
        outer: OuterProduct,
        grid: tuple[int, int],
        accumulator_entries: int,
        exchanges_halos: bool = True,
        depthwise: bool = False,
    ) -> "PlanarPlan":
        """Plan of a product on a grid of elements with limited accumulators.

        Args:
            outer: the product.
            grid: elements, (vertically, horizontally).
            accumulator_entries: outputs that one element holds.
            exchanges_halos: True if neighbours share outputs. They do not in a weight
                gradient, whose few outputs belong to every element.
            depthwise: True if filters are taken one at a time.
        """
        axes = (outer.rows, outer.columns)
        parts = _fewest_passes(
            (axes[0].outputs, axes[1].outputs), grid, accumulator_entries
        )
        rows, columns = (
            _cut(axis, taps, n)
            for axis, taps, n in zip(axes, outer.kernels.shape[2:], parts, strict=True)
        )
        largest = (rows[0], columns[0])
        tile, outputs = (
            [ceil_div(size, n) for size, n in zip(sizes, grid, strict=True)]
            for sizes in ([a.extent for a in largest], [a.outputs for a in largest])
        )
        covered = all(
            axis.kernel_step * (taps - 1) >= axis.image_step * (pixels - 1)
            for axis, taps, pixels in zip(
                axes, outer.kernels.shape[2:], outer.images.shape[2:], strict=True
            )
        )
        fitting = 1 if depthwise else accumulator_entries // (outputs[0] * outputs[1])
        return cls(
            rows=rows,
            columns=columns,
            tile=(tile[0], tile[1]),
            filters_at_once=min(fitting, outer.kernels.shape[1]),
            halo_area=(
                _halo_area(outer, tile) if exchanges_halos and not covered else 0
            ),
        )


def _fewest_passes(
    outputs: tuple[int, int], grid: tuple[int, int], entries: int
) -> tuple[int, int]:
    """Fewest equal parts of the output plane that fit; cut between rows if possible."""
    for passes in itertools.count(1):
        for across in range(1, passes + 1):
            parts = (passes // across, across)
            if passes % across or parts[0] > outputs[0] or parts[1] > outputs[1]:
                continue
            held = 1
            for size, n, elements in zip(outputs, parts, grid, strict=True):
                held *= ceil_div(ceil_div(size, n), elements)
            if held <= entries:
                return parts
    raise AssertionError("one output per pass always fits")


def _cut(axis: Axis, taps: int, parts: int) -> tuple[Axis, ...]:
    """The axis in passes of equal numbers of outputs, the last maybe shorter."""
    if parts == 1:
        return (axis,)
    size = ceil_div(axis.outputs, parts)
    passes = []
    for first in range(0, axis.outputs, size):
        outputs = min(size, axis.outputs - first)
        reach = axis.stride * (outputs - 1) + axis.kernel_step * (taps - 1) + 1
        offset = axis.image_offset - first * axis.stride
        passes.append(replace(axis, image_offset=offset, outputs=outputs, extent=reach))
    return tuple(passes)


def _halo_area(outer: OuterProduct, tile: list[int]) -> int:
    """Largest of the eight areas around a tile whose outputs belong to a neighbour.

    Stride 1: the sides are ``R-1-p``, the tile, and ``p``. With stride ``t`` they are
    counted in outputs, ``ceil(side / t)``; no side is negative (own choices).
    """
    sides = []
    for axis, taps, size in zip(
        (outer.rows, outer.columns), outer.kernels.shape[2:], tile, strict=True
    ):
        before = axis.image_offset
        after = axis.kernel_step * (taps - 1) - before
        sides.append([max(ceil_div(n, axis.stride), 0) for n in (after, size, before)])
    return max(
        vertical * horizontal
        for i, vertical in enumerate(sides[0])
        for j, horizontal in enumerate(sides[1])
        if (i, j) != (1, 1)
    )


def planar_counts(
    outer: OuterProduct,
    plan: PlanarPlan,
    grid: tuple[int, int],
    lanes: int,
    serialised: bool,
    channels_per_barrier: int = 1,
) -> dict[str, int]:
    """The :data:`COUNTS` of a product, summed over passes; arguments as in ``walk``."""
    total = np.zeros(len(COUNTS), np.int64)
    for rows in plan.rows:
        for columns in plan.columns:
            padded = _padded(outer, rows, columns, grid)
            total += walk(
                padded,
                outer.kernels,
                (rows.kernel_step, rows.stride, rows.outputs),
                (columns.kernel_step, columns.stride, columns.outputs),
                grid,
                plan.filters_at_once,
                lanes,
                serialised,
                channels_per_barrier,
            )
    return dict(zip(COUNTS, total.tolist(), strict=True))


def _padded(
    outer: OuterProduct, rows: Axis, columns: Axis, grid: tuple[int, int]
) -> np.ndarray:
    """Image planes in padded coordinates, rounded up to a multiple of the grid."""
    sizes, inside, at = [], [], []
    for axis, pixels, elements in zip(
        (rows, columns), outer.images.shape[2:], grid, strict=True
    ):
        sizes.append(ceil_div(axis.extent, elements) * elements)
        places = axis.image_step * np.arange(pixels) + axis.image_offset
        kept = (places >= 0) & (places < axis.extent)
        inside.append(np.flatnonzero(kept))
        at.append(places[kept])
    padded = np.zeros((*outer.images.shape[:2], *sizes), bool)
    padded[:, :, at[0][:, None], at[1]] = outer.images[
        :, :, inside[0][:, None], inside[1]
    ]
    return padded


@compiled
def walk(
    images: np.ndarray,
    kernels: np.ndarray,
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    grid: tuple[int, int],
    filters_at_once: int,
    lanes: int,
    serialised: bool,
    channels_per_barrier: int,
) -> np.ndarray:
    """Walk every issue step of every element; returns the :data:`COUNTS`.

    Without serialised conflicts the steps need only be counted, and ``valid`` stays 0.
    With them only the vectors that can hold a valid product are looked into.

    Args:
        images: boolean (channels of all groups, samples, rows, columns), padded.
        kernels: boolean (channels of all groups, filters, taps, taps).
        rows: kernel step, stride and outputs of the vertical axis.
        columns: the same of the horizontal axis.
        grid: elements, (vertically, horizontally).
        filters_at_once: filters per group of filters.
        lanes: image values, and kernel values, per vector.
        serialised: whether products for one bank wait for one another.
        channels_per_barrier: channels after which all elements wait for the slowest.
    """
    x_step, x_stride, x_outputs = rows
    y_step, y_stride, y_outputs = columns
    blocks, samples, height, width = images.shape
    filters, taps_x, taps_y = kernels.shape[1:]
    tile_x, tile_y = height // grid[0], width // grid[1]
    classes = x_stride * y_stride
    counts = np.zeros(9, np.int64)
    spent = np.zeros((samples, grid[0] * grid[1]), np.int64)  # since the last barrier
    hits = np.zeros(32, np.int64)
    # One channel's kernel values by residue class, ordered by row, column, filter.
    kernel_x = np.zeros(filters * taps_x * taps_y, np.int64)
    kernel_y = np.zeros(filters * taps_x * taps_y, np.int64)
    kernel_k = np.zeros(filters * taps_x * taps_y, np.int64)
    place = np.zeros(filters * taps_x * taps_y, np.int64)  # rises within a class
    span = y_step * (taps_y - 1) // y_stride + 1
    starts = np.zeros(classes + 1, np.int64)
    image_x = np.zeros(tile_x * tile_y, np.int64)
    image_y = np.zeros(tile_x * tile_y, np.int64)
    for first in range(0, filters, filters_at_once):
        last = min(first + filters_at_once, filters)
        for block in range(blocks):
            stored = 0
            for residue in range(classes):
                for r in range(taps_x):
                    if (x_step * r) % x_stride != residue // y_stride:
                        continue
                    for s in range(taps_y):
                        if (y_step * s) % y_stride != residue % y_stride:
                            continue
                        for k in range(first, last):
                            if kernels[block, k, r, s]:
                                # Equal residues: the quotients differ by the output.
                                kernel_x[stored] = x_step * r // x_stride
                                kernel_y[stored] = y_step * s // y_stride
                                kernel_k[stored] = k
                                place[stored] = (
                                    kernel_x[stored] * span + kernel_y[stored]
                                )
                                stored += 1
                starts[residue + 1] = stored
            barrier = (block + 1) % channels_per_barrier == 0
            for sample in range(samples):
                for element in range(grid[0] * grid[1]):
                    low_x = element // grid[1] * tile_x
                    low_y = element % grid[1] * tile_y
                    cost = 0
                    for residue in range(classes):
                        found = 0
                        skip_x = (residue // y_stride - low_x) % x_stride
                        skip_y = (residue % y_stride - low_y) % y_stride
                        for x in range(low_x + skip_x, low_x + tile_x, x_stride):
                            for y in range(low_y + skip_y, low_y + tile_y, y_stride):
                                if images[block, sample, x, y]:
                                    image_x[found] = x // x_stride
                                    image_y[found] = y // y_stride
                                    found += 1
                        begin, end = starts[residue], starts[residue + 1]
                        vectors = (found + lanes - 1) // lanes
                        steps = vectors * ((end - begin + lanes - 1) // lanes)
                        counts[1] += steps
                        counts[2] += found * (end - begin)
                        counts[4] += vectors
                        counts[7] += found
                        counts[8] += vectors * (end - begin)
                        cost += steps
                        if not serialised:
                            continue
                        for i0 in range(0, found, lanes):
                            i1 = min(i0 + lanes, found)
                            # Only kernel values between two places can be valid; of
                            # the other vectors no product waits for another.
                            low_oy = image_y[i0:i1].min() - y_outputs + 1
                            high_oy = image_y[i0:i1].max()
                            low_place = (image_x[i0] - x_outputs + 1) * span
                            low_place += min(max(low_oy, 0), span)
                            high_place = image_x[i1 - 1] * span
                            high_place += min(high_oy, span - 1)
                            of_class = place[begin:end]
                            near = np.searchsorted(of_class, low_place)
                            far = np.searchsorted(of_class, high_place, side="right")
                            aligned = begin + near // lanes * lanes
                            for j0 in range(aligned, begin + far, lanes):
                                j1 = min(j0 + lanes, end)
                                hits[:] = 0
                                fullest = 1
                                for i in range(i0, i1):
                                    for j in range(j0, j1):
                                        ox = image_x[i] - kernel_x[j]
                                        oy = image_y[i] - kernel_y[j]
                                        if ox < 0 or ox >= x_outputs:
                                            continue
                                        if oy < 0 or oy >= y_outputs:
                                            continue
                                        counts[3] += 1
                                        k = kernel_k[j]
                                        mixed = (k >> 2) ^ (ox >> 1) ^ (oy >> 1)
                                        bank = (
                                            16 * (mixed & 1)
                                            + 8 * (ox & 1)
                                            + 4 * (oy & 1)
                                            + (k & 3)
                                        )
                                        hits[bank] += 1
                                        fullest = max(fullest, hits[bank])
                                cost += fullest - 1
                                counts[5] += fullest - 1
                    spent[sample, element] += cost
                if barrier:
                    slowest = spent[sample].max()
                    counts[0] += slowest
                    counts[6] += slowest * grid[0] * grid[1] - spent[sample].sum()
                    spent[sample] = 0
    return counts
