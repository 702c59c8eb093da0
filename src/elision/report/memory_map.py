"""A memory plan as a picture: steps to the right, addresses upwards, a box a tensor."""

from collections.abc import Sequence

from elision.report.style import INK, SERIES, drawing, svg

__all__ = ["memory_map"]

#: Share of the arena's height, and of the steps, from which on a box bears its name.
_TALL, _WIDE = 0.035, 0.05

#: Opacity of the boxes, on which names in ink are read.
_PALE = 0.4

#: Steps up to which each is named below.
_NAMED = 40


def memory_map(
    tensors: Sequence[tuple[str, int, int, int, int]],
    steps: Sequence[str],
    *,
    title: str = "Memory map",
    limit_bytes: int | None = None,
) -> str:
    """Draw where tensors lie in an arena, and when.

    Args:
        tensors: name, bytes, first and last step inclusive, offset in bytes.
        steps: names of the operations, in order.
        title: above the picture.
        limit_bytes: memory of a device, drawn as a line where it is in sight.

    Raises:
        ValueError: there is no tensor or no step.

    Example:
        >>> drawn = memory_map([("x", 10, 0, 0, 20), ("y", 20, 0, 0, 0)], ["layer"])
        >>> drawn.startswith("<svg"), "layer" in drawn
        (True, True)
    """
    if not tensors or not steps:
        raise ValueError("memory_map: needs one tensor and one step at least")
    top = max(offset + size for _, size, _, _, offset in tensors)
    unit, word = (1024, "KiB") if top >= 4096 else (1, "bytes")
    live = [
        sum(size for _, size, first, last, _ in tensors if first <= step <= last)
        for step in range(len(steps))
    ]
    with drawing(9.2, 3.6) as figure:
        axes = figure.subplots()
        for index, (name, size, first, last, offset) in enumerate(tensors):
            if not size:
                continue
            width = last + 1 - first
            axes.bar(
                first,
                size / unit,
                width,
                bottom=offset / unit,
                align="edge",
                color=SERIES[index % len(SERIES)],
                alpha=_PALE,
                edgecolor="white",
                linewidth=0.8,
            )
            if size >= _TALL * top and width >= _WIDE * len(steps):
                axes.text(
                    first + width / 2,
                    (offset + size / 2) / unit,
                    name,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color=INK,
                    clip_on=True,
                )
        axes.stairs(
            [value / unit for value in live],
            range(len(steps) + 1),
            color=INK,
            linewidth=1.2,
            label="live",
        )
        if limit_bytes is not None and limit_bytes <= 1.5 * top:
            axes.axhline(limit_bytes / unit, color=INK, linestyle="--", label="RAM")
        axes.set(title=title, ylabel=f"address, {word}", xlim=(0, len(steps)))
        axes.set_ylim(bottom=0)
        if len(steps) <= _NAMED:
            places = [step + 0.5 for step in range(len(steps))]
            axes.set_xticks(places, steps, rotation=90, fontsize=6.5)
        else:
            axes.set_xlabel("step")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper right", fontsize=8)
        return svg(figure)
