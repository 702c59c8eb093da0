"""The two ways to count what ANT's range unit selects: closed form and window scan.

A group of image values in CSR order, with coordinates ``y0..y1`` and ``x0..x1``, can
meet the kernel values of one rectangle only::

    y0 - t·(Ho-1) <= r <= y1        x0 - t·(Wo-1) <= s <= x1

(``t`` is the stride; divisibility is not tested.) Kernel rows outside it are never
read. Of the rows inside, the unit compares ``window`` column indices per cycle and
issues the first ``lanes`` that are in range; it goes on after the last one issued, or
after the window if fewer were found.

* :func:`scan` does exactly that, value by value.
* :func:`rectangles` counts the non-zeros ``m`` of the rectangle and ``c`` of its rows
  on integral images and takes ``max(ceil(m/lanes), ceil(c/window))`` cycles per vector
  of image values: a lower bound of the scan, because no cycle issues more than
  ``lanes`` or passes more than ``window`` values. Every cycle of the scan does one of
  the two in full or is a group's last, so it takes at most twice as long. Both issue
  the same products.

Both return int64 totals in the order of :data:`TOTALS`.
"""

import numpy as np

from elision.accelerators.compiled import compiled

__all__ = ["TOTALS", "rectangles", "scan"]

#: Counts of the kernels. ``issued``: products. ``cycles``: without start-up, summed
#: over pairs. ``longest``: cycles of the longest pair. ``scanned``: kernel indices
#: compared. ``fetched``: kernel values read. ``image_reads``: image values read.
TOTALS = ("issued", "cycles", "longest", "scanned", "fetched", "image_reads")


@compiled
def rectangles(
    images: np.ndarray,
    kernels: np.ndarray,
    rows: tuple[int, int, int, int, int],
    columns: tuple[int, int, int, int, int],
    group: int,
    lanes: int,
    window: int,
) -> np.ndarray:
    """Totals over all pairs of planes, each group in constant time.

    Args:
        images: boolean (blocks, images, rows, columns).
        kernels: boolean (blocks, kernels, rows, columns).
        rows: ``Axis.as_tuple`` of the vertical axis.
        columns: the same of the horizontal axis.
        group: image values that share one range.
        lanes: image values, and kernel values, multiplied per cycle.
        window: kernel indices compared per cycle.
    """
    y_step, y_offset, r_step, y_stride, y_outputs = rows
    x_step, x_offset, s_step, x_stride, x_outputs = columns
    blocks, per_block, height, width = images.shape
    kernel_count, kernel_rows, kernel_columns = kernels.shape[1:]
    totals = np.zeros(6, np.int64)
    # sums[j, r, s]: non-zeros of kernel j in rows < r and columns < s.
    sums = np.zeros((kernel_count, kernel_rows + 1, kernel_columns + 1), np.int32)
    bounds = np.zeros((height * width // group + 1, 5), np.int32)
    for block in range(blocks):
        for j in range(kernel_count):
            for r in range(kernel_rows):
                row = 0
                for s in range(kernel_columns):
                    row += kernels[block, j, r, s]
                    sums[j, r + 1, s + 1] = sums[j, r, s + 1] + row
        for i in range(per_block):
            # The groups of this image plane and the rectangle that each can reach.
            found = 0
            groups = 0
            first_y = last_y = low_x = high_x = 0
            for h in range(height):
                for w in range(width):
                    if not images[block, i, h, w]:
                        continue
                    y = y_step * h + y_offset
                    x = x_step * w + x_offset
                    if found % group == 0:
                        first_y = y
                        low_x = x
                        high_x = x
                    last_y = y
                    low_x = min(low_x, x)
                    high_x = max(high_x, x)
                    found += 1
                    slot = (found - 1) // group
                    groups = slot + 1
                    top = -((y_stride * (y_outputs - 1) - first_y) // r_step)
                    left = -((x_stride * (x_outputs - 1) - low_x) // s_step)
                    bounds[slot, 0] = max(top, 0)
                    bounds[slot, 1] = min(last_y // r_step + 1, kernel_rows)
                    bounds[slot, 2] = max(left, 0)
                    bounds[slot, 3] = min(high_x // s_step + 1, kernel_columns)
                    bounds[slot, 4] = found - slot * group
            if found == 0:
                continue
            for j in range(kernel_count):
                if sums[j, kernel_rows, kernel_columns] == 0:
                    continue
                cycles = 0
                for q in range(groups):
                    top, bottom = bounds[q, 0], bounds[q, 1]
                    left, right = bounds[q, 2], bounds[q, 3]
                    if top >= bottom or left >= right:
                        continue
                    in_range = (
                        sums[j, bottom, right]
                        - sums[j, top, right]
                        - sums[j, bottom, left]
                        + sums[j, top, left]
                    )
                    candidates = (
                        sums[j, bottom, kernel_columns] - sums[j, top, kernel_columns]
                    )
                    size = bounds[q, 4]
                    vectors = (size + lanes - 1) // lanes
                    cycles += vectors * max(
                        (in_range + lanes - 1) // lanes,
                        (candidates + window - 1) // window,
                    )
                    totals[0] += in_range * size
                    totals[3] += vectors * candidates
                    totals[4] += vectors * in_range
                    if in_range:
                        totals[5] += size
                totals[1] += cycles
                totals[2] = max(totals[2], cycles)
    return totals


@compiled
def scan(
    images: np.ndarray,
    kernels: np.ndarray,
    rows: tuple[int, int, int, int, int],
    columns: tuple[int, int, int, int, int],
    group: int,
    lanes: int,
    window: int,
) -> np.ndarray:
    """Totals over all pairs of planes by walking every window; arguments as above."""
    y_step, y_offset, r_step, y_stride, y_outputs = rows
    x_step, x_offset, s_step, x_stride, x_outputs = columns
    blocks, per_block, height, width = images.shape
    kernel_count, kernel_rows, kernel_columns = kernels.shape[1:]
    totals = np.zeros(6, np.int64)
    # CSR of every kernel plane, and the coordinates of the image plane's non-zeros.
    starts = np.zeros((kernel_count, kernel_rows + 1), np.int64)
    indices = np.zeros((kernel_count, kernel_rows * kernel_columns), np.int64)
    ys = np.zeros(height * width, np.int64)
    xs = np.zeros(height * width, np.int64)
    for block in range(blocks):
        for j in range(kernel_count):
            stored = 0
            for r in range(kernel_rows):
                for s in range(kernel_columns):
                    if kernels[block, j, r, s]:
                        indices[j, stored] = s_step * s
                        stored += 1
                starts[j, r + 1] = stored
        for i in range(per_block):
            found = 0
            for h in range(height):
                for w in range(width):
                    if images[block, i, h, w]:
                        ys[found] = y_step * h + y_offset
                        xs[found] = x_step * w + x_offset
                        found += 1
            if found == 0:
                continue
            for j in range(kernel_count):
                if starts[j, kernel_rows] == 0:
                    continue
                pair_cycles = 0
                for begin in range(0, found, group):
                    end = min(begin + group, found)
                    low = xs[begin:end].min() - x_stride * (x_outputs - 1)
                    high = xs[begin:end].max()
                    first = ys[begin] - y_stride * (y_outputs - 1)
                    top = max(-(-first // r_step), 0)
                    bottom = min(ys[end - 1] // r_step + 1, kernel_rows)
                    if top >= bottom or high < 0 or low > s_step * (kernel_columns - 1):
                        continue
                    if (high // s_step) * s_step < low:
                        continue  # no column index at all lies in the range
                    position, stop = starts[j, top], starts[j, bottom]
                    candidates = stop - position
                    cycles = 0
                    in_range = 0
                    while position < stop:
                        cycles += 1
                        taken = 0
                        looked = 0
                        while looked < window and taken < lanes and position < stop:
                            taken += low <= indices[j, position] <= high
                            position += 1
                            looked += 1
                        in_range += taken
                    size = end - begin
                    vectors = (size + lanes - 1) // lanes
                    pair_cycles += vectors * cycles
                    totals[0] += in_range * size
                    totals[3] += vectors * candidates
                    totals[4] += vectors * in_range
                    if in_range:
                        totals[5] += size
                totals[1] += pair_cycles
                totals[2] = max(totals[2], pair_cycles)
    return totals
