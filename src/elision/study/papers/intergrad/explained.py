"""The figure that explains the interleave: the array, and the schedule of its PEs."""

from elision.common.checks import integer
from elision.common.printable import escaped
from elision.report.style import INK, PRODUCT_COLOURS

__all__ = ["interleave_svg"]

PALE = "#f4f4f0"
#: First clock of a row of G in a PE (a term of dX), and second (a term of dW).
PHASES = {
    "dX": PRODUCT_COLOURS["input_grad"],
    "dW": PRODUCT_COLOURS["weight_grad"],
}

CELL, SPACE = 78, 36  # side of a PE, and the gap for the links between PEs
LEFT, TOP = 120, 70  # corner of the first PE
SLOT = (44, 20)  # width and height of one clock in the schedule


def interleave_svg(rows: int = 3, columns: int = 3, streamed: int = 3) -> str:
    """Draw a ``rows`` x ``columns`` array that interleaves, and its schedule.

    On the left the array with its inputs and outputs; on the right, for the PEs of the
    first column and the last one, the row of G in each clock and its gradient.

    Args:
        rows: of PEs, one per output feature.
        columns: of PEs, one per input feature.
        streamed: rows of G, ``M``.

    Raises:
        ValueError: a size is below 1.
    """
    for name, size in {"rows": rows, "columns": columns, "streamed": streamed}.items():
        integer("interleave_svg", name, size)
    array = _array(rows, columns)
    left = LEFT + columns * (CELL + SPACE) + 36
    corners = [(o, 0) for o in range(rows)] + [(rows - 1, columns - 1)]
    schedule = _schedule(list(dict.fromkeys(corners)), rows, columns, streamed, left)
    clocks = 2 * streamed + rows + columns - 2
    width = left + 62 + clocks * SLOT[0] + 8
    height = TOP + rows * (CELL + SPACE) + 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" '
            'font-size="12">',
            "<title>Interleaved gradients on a systolic array</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *array,
            *schedule,
            "</svg>\n",
        ]
    )


def _text(
    x: float, y: float, text: str, anchor: str = "middle", fill: str = INK
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}">'
        f"{escaped(text)}</text>"
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{INK}" '
        'stroke-width="1.3" marker-end="url(#head)"/>'
    )


def _even(offset: int) -> str:
    return f"2m+{offset}" if offset else "2m"


def _array(rows: int, columns: int) -> list[str]:
    """PEs with their weights and sums, links between them, inputs and outputs."""
    parts = []
    pitch = CELL + SPACE
    for o in range(rows):
        for j in range(columns):
            x, y = LEFT + j * pitch, TOP + o * pitch
            parts += [
                f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" rx="6" '
                f'fill="{PALE}" stroke="{INK}"/>',
                _text(x + CELL / 2, y + 30, f"W[{o},{j}]"),
                _text(x + CELL / 2, y + 52, f"Σ dW[{o},{j}]"),
            ]
            if j == 0:
                parts.append(_text(x - SPACE - 4, y + CELL / 2 - 6, f"G[m,{o}]", "end"))
                clock = f"clock {_even(o)}"
                parts.append(_text(x - SPACE - 4, y + CELL / 2 + 10, clock, "end"))
            parts.append(_arrow(x - SPACE, y + CELL / 2, x, y + CELL / 2))
            parts.append(_arrow(x + CELL / 2, y - SPACE, x + CELL / 2, y))
    for j in range(columns):
        x = LEFT + j * pitch + CELL / 2
        below = TOP + rows * pitch - SPACE
        parts += [
            _text(x, 14, f"0 at {_even(j)}"),
            _text(x, 30, f"X[m,{j}] at {_even(j + 1)}"),
            _arrow(x, below, x, below + SPACE),
            _text(x, below + SPACE + 16, f"dX[m,{j}]"),
        ]
    return parts


def _schedule(
    shown: list[tuple[int, int]], rows: int, columns: int, streamed: int, left: int
) -> list[str]:
    """One line per shown PE, one box per clock."""
    clocks = 2 * streamed + rows + columns - 2
    wide, high = SLOT
    parts = [_text(left + 56, 60, "clock", "end")]
    parts += [
        _text(left + 62 + clock * wide + wide / 2, 60, str(clock))
        for clock in range(clocks)
    ]
    for place, (o, j) in enumerate(shown):
        y = 70 + place * (high + 8)
        parts.append(_text(left + 56, y + 14, f"PE({o},{j})", "end"))
        for clock in range(o + j, o + j + 2 * streamed):
            m, second = divmod(clock - o - j, 2)
            gradient = "dW" if second else "dX"
            x = left + 62 + clock * wide
            parts += [
                f'<rect x="{x}" y="{y}" width="{wide - 2}" height="{high}" '
                f'fill="{PHASES[gradient]}"/>',
                _text(x + wide / 2 - 1, y + 14, f"G[{m},{o}]", fill="white"),
            ]
    y = 70 + len(shown) * (high + 8) + 16
    for number, (gradient, term) in enumerate(
        [
            ("dX", "partial sum from the north += G·W"),
            ("dW", "Σ dW += G·X, X passes on"),
        ]
    ):
        parts += [
            f'<rect x="{left + 62}" y="{y + number * 24}" width="{wide - 2}" '
            f'height="{high}" fill="{PHASES[gradient]}"/>',
            _text(left + 62 + wide + 6, y + number * 24 + 14, term, "start"),
        ]
    return parts
