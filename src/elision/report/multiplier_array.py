"""The multiplier array of an outer-product machine, step by step, as SVG drawings.

Each drawing shows the image plane and the kernel plane of a convolution (stride 1, no
padding), the vectors of non-zeros that meet in one step, and the array of their
products: valid ones belong to an output, redundant ones (RCPs) to none. With
anticipation, kernel values that no value of the image vector can use are skipped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Step",
    "array_steps",
    "multiplier_array_animation",
    "multiplier_array_svgs",
]

Place = tuple[int, int]

_CELL, _GAP, _MARGIN, _HEAD, _FOOT = 34, 40, 16, 44, 62
_FILL = {"valid": "#0f766e", "redundant": "#d97706", "idle": "#f1f5f9"}
_IMAGE, _KERNEL, _INK, _FAINT, _LINE = (
    "#bfdbfe",
    "#ddd6fe",
    "#0f172a",
    "#94a3b8",
    "#cbd5e1",
)


@dataclass(frozen=True)
class Step:
    """One step of the array.

    Attributes:
        image: places of the image vector, in CSR order.
        kernel: places of the kernel vector.
        skipped: kernel places that the image vector's range leaves out.
        outputs: rows and columns of the output plane.

    Example:
        >>> step = next(array_steps(np.ones((2, 2)), np.ones((1, 1)), lanes=2))
        >>> step.valid, step.redundant
        (2, 0)
    """

    image: tuple[Place, ...]
    kernel: tuple[Place, ...]
    skipped: tuple[Place, ...]
    outputs: Place

    def is_valid(self, image: Place, kernel: Place) -> bool:
        """True if the product of two places belongs to an output."""
        return all(
            0 <= i - k < n for i, k, n in zip(image, kernel, self.outputs, strict=True)
        )

    @property
    def valid(self) -> int:
        """Products of this step that belong to an output."""
        return sum(self.is_valid(i, k) for i in self.image for k in self.kernel)

    @property
    def redundant(self) -> int:
        """Products of this step that belong to none."""
        return len(self.image) * len(self.kernel) - self.valid


def array_steps(
    image: np.ndarray, kernel: np.ndarray, lanes: int = 4, anticipates: bool = True
) -> Iterator[Step]:
    """Steps of one pair of planes.

    Args:
        image: plane of shape (H, W).
        kernel: plane of shape (R, S), not larger.
        lanes: length of the vectors; the array is ``lanes`` by ``lanes``.
        anticipates: True skips kernel values out of range (ANT), False multiplies them
            like all others (SCNN).

    Raises:
        ValueError: the kernel is larger than the image, or ``lanes`` is not positive.
    """
    rows, columns = (n - k + 1 for n, k in zip(image.shape, kernel.shape, strict=True))
    if min(rows, columns, lanes) < 1:
        raise ValueError(
            f"a kernel of {kernel.shape} on an image of {image.shape} with "
            f"lanes={lanes}: the kernel must fit the image, and lanes be at least 1"
        )
    values, taps = _places(image), _places(kernel)
    for vector in _vectors(values, lanes):
        chosen = taps
        if anticipates:
            ys, xs = zip(*vector, strict=True)
            chosen = [
                (r, s)
                for r, s in taps
                if min(ys) - rows < r <= max(ys) and min(xs) - columns < s <= max(xs)
            ]
        skipped = tuple(tap for tap in taps if tap not in chosen)
        for kernel_vector in _vectors(chosen, lanes):
            yield Step(vector, kernel_vector, skipped, (rows, columns))


def _places(plane: np.ndarray) -> list[Place]:
    return [(int(y), int(x)) for y, x in np.argwhere(plane)]


def _vectors(places: Sequence[Place], lanes: int) -> list[tuple[Place, ...]]:
    return [tuple(places[i : i + lanes]) for i in range(0, len(places), lanes)]


def multiplier_array_svgs(
    image: np.ndarray, kernel: np.ndarray, lanes: int = 4, anticipates: bool = True
) -> list[str]:
    """One SVG document per step; arguments as in :func:`array_steps`."""
    size = _size(image, kernel, lanes)
    return [
        _document(size, drawing, title)
        for title, drawing in _drawings(image, kernel, lanes, anticipates)
    ]


def multiplier_array_animation(
    image: np.ndarray,
    kernel: np.ndarray,
    lanes: int = 4,
    anticipates: bool = True,
    step_seconds: float = 1.5,
) -> str:
    """All steps in one SVG document that shows them in turn, without a script."""
    drawings = list(_drawings(image, kernel, lanes, anticipates))
    frames = []
    for number, (_, drawing) in enumerate(drawings):
        shown = ["none"] * len(drawings)
        shown[number] = "inline"
        frames.append(
            f'<g display="{"none" if number else "inline"}">'
            f'<animate attributeName="display" values="{";".join(shown)}" '
            f'dur="{len(drawings) * step_seconds:g}s" calcMode="discrete" '
            f'repeatCount="indefinite"/>{drawing}</g>'
        )
    title = f"{len(drawings)} steps of a multiplier array"
    return _document(_size(image, kernel, lanes), "".join(frames), title)


def _drawings(
    image: np.ndarray, kernel: np.ndarray, lanes: int, anticipates: bool
) -> Iterator[tuple[str, str]]:
    """Title and drawing of every step."""
    steps = list(array_steps(image, kernel, lanes, anticipates))
    bottom = _size(image, kernel, lanes)[1]
    for number, step in enumerate(steps, 1):
        title = f"step {number} of {len(steps)}: "
        title += f"{step.valid} valid, {step.redundant} redundant"
        if step.skipped:
            values = "value" if len(step.skipped) == 1 else "values"
            title += f", {len(step.skipped)} kernel {values} skipped"
        left = _MARGIN
        parts = _plane(left, "image", image, step.image, (), _IMAGE)
        left += image.shape[1] * _CELL + _GAP
        parts += _plane(left, "kernel", kernel, step.kernel, step.skipped, _KERNEL)
        left += max(kernel.shape[1], 2) * _CELL + _GAP
        parts += _array(left, step, image, kernel, lanes)
        parts.append(_text(_MARGIN, bottom - 34, title, size=13, anchor="start"))
        parts.append(_key(bottom - 12))
        yield title, "".join(parts)


def _size(image: np.ndarray, kernel: np.ndarray, lanes: int) -> tuple[int, int]:
    """Width and height of a drawing."""
    columns = image.shape[1] + max(kernel.shape[1], 2) + lanes + 1
    tallest = max(image.shape[0], kernel.shape[0], lanes + 1)
    width = 2 * (_MARGIN + _GAP) + columns * _CELL
    return width, _HEAD + tallest * _CELL + _FOOT


def _document(size: tuple[int, int], content: str, title: str) -> str:
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        'font-family="system-ui, sans-serif">'
        f"<title>{title}</title>"
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        f"{content}</svg>"
    )


def _key(y: int) -> str:
    """Legend of the colours of the array."""
    parts = []
    for x, kind in ((_MARGIN, "valid"), (_MARGIN + 70, "redundant")):
        parts.append(
            f'<rect x="{x}" y="{y - 10}" width="11" height="11" rx="2" '
            f'fill="{_FILL[kind]}"/>'
        )
        parts.append(_text(x + 17, y, kind, size=12, anchor="start"))
    return "".join(parts)


def _plane(
    left: int,
    label: str,
    plane: np.ndarray,
    chosen: Sequence[Place],
    skipped: Sequence[Place],
    colour: str,
) -> list[str]:
    """A plane with the vector of this step filled and skipped values crossed out."""
    parts = [_text(left, _HEAD - 14, label, size=13, anchor="start")]
    for y, x in np.ndindex(plane.shape):
        place = (left + x * _CELL, _HEAD + y * _CELL)
        fill = colour if (y, x) in chosen else "#ffffff"
        ink = _INK if (y, x) in chosen else _FAINT
        parts.append(_cell(*place, f"{plane[y, x]:g}", fill, ink))
        if (y, x) in skipped:
            x0, y0 = place[0] + 7, place[1] + 7
            end = _CELL - 14
            parts.append(
                f'<path d="M{x0} {y0}l{end} {end}m0 {-end}l{-end} {end}" '
                f'stroke="{_FAINT}" stroke-width="2" fill="none"/>'
            )
    return parts


def _array(
    left: int, step: Step, image: np.ndarray, kernel: np.ndarray, lanes: int
) -> list[str]:
    """The products, image values down the side and kernel values along the top."""
    parts = [_text(left, _HEAD - 14, "multipliers", size=13, anchor="start")]
    for row in range(lanes + 1):
        for column in range(lanes + 1):
            if row == column == 0:
                continue
            y = step.image[row - 1] if 0 < row <= len(step.image) else None
            x = step.kernel[column - 1] if 0 < column <= len(step.kernel) else None
            text, fill, ink = "", _FILL["idle"], _INK
            if row == 0:
                text, fill = (f"{kernel[x]:g}", _KERNEL) if x else ("", "#ffffff")
            elif column == 0:
                text, fill = (f"{image[y]:g}", _IMAGE) if y else ("", "#ffffff")
            elif x and y:
                kind = "valid" if step.is_valid(y, x) else "redundant"
                text, fill, ink = f"{image[y] * kernel[x]:g}", _FILL[kind], "#ffffff"
            place = (left + column * _CELL, _HEAD + row * _CELL)
            parts.append(_cell(*place, text, fill, ink))
    return parts


def _cell(x: int, y: int, text: str, fill: str, ink: str) -> str:
    side = _CELL - 2
    box = (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" rx="4" '
        f'fill="{fill}" stroke="{_LINE}"/>'
    )
    if not text:
        return box
    return box + _text(x + side // 2, y + side // 2 + 5, text, size=14, ink=ink)


def _text(
    x: int, y: int, text: str, size: int, anchor: str = "middle", ink: str = _INK
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{ink}">{text}</text>'
    )
