"""A spatial array as an SVG drawing: elements, links of each tensor, and when data enter.

Elements are where the map puts them. A straight arrow is a link that passes a tensor on
after some cycles, a line without a head a bus or an adder tree, and a square inside an
element what stays there. At the edge stands the cycle in which each lane's first datum
enters: the skew of the input.
"""

from collections.abc import Sequence

import numpy as np

from elision.accelerators.spatial.derived import Link, entry, links
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest
from elision.accelerators.spatial.search import Found
from elision.common.printable import escaped
from elision.report.style import (
    INK,
    TENSOR_COLOURS,
    drawing,
    plain_numbers,
    series_mark,
    svg,
)

__all__ = ["array_svg", "search_svg"]

Place = tuple[int, ...]

_STEP, _SIDE, _MARGIN, _HEAD, _LINE = 74, 40, 52, 16, 20
_WIDTH = 420

#: Colours of the tensors, first operand, second operand, result.
_COLOURS = tuple(TENSOR_COLOURS[name] for name in ("input", "weight", "result"))

#: Candidates of a search are drawn up to so many times the best.
_NEAR = 8

#: Elements drawn along a side; larger nests are drawn with shorter loops.
_DRAWN = 4


def array_svg(
    nest: LoopNest, map: SpaceTimeMap, title: str = "", *, written: str = ""
) -> str:
    """Draw the array of a map on a plane or a line.

    Args:
        nest: loops longer than 4 are drawn as 4.
        map: of one or two dimensions.
        title: above the drawing.
        written: what the tensor is called that is written; default: its name in the nest.

    Raises:
        ValueError: a map of more than two dimensions, or an unknown loop.

    Example:
        >>> nest = LoopNest.matmul(3, 3, 3)
        >>> drawn = array_svg(nest, SpaceTimeMap.keeping(nest, "C"), "output-stationary")
        >>> drawn.startswith("<svg"), drawn.count('class="pe"')
        (True, 9)
    """
    if map.dimensions > 2:
        raise ValueError(
            f"a map of {map.dimensions} dimensions cannot be drawn on a plane"
        )
    small = nest.resized({loop: min(n, _DRAWN) for loop, n in nest.loops.items()})
    places = _places(small, map)
    corner = [min(place[axis] for place in places) for axis in range(map.dimensions)]
    known = set(places)

    def centre(place: Place) -> tuple[float, float]:
        row, column = (*(p - c for p, c in zip(place, corner, strict=True)), 0)[:2]
        return (
            _MARGIN + column * _STEP + _SIDE / 2,
            _HEAD + _MARGIN + row * _STEP + _SIDE / 2,
        )

    parts, notes = [], []
    for number, tensor in enumerate(small.tensors):
        colour = _COLOURS[number]
        found = links(small, map, tensor)
        moving = [link for link in found if any(link.hop)]
        name = written if written and tensor == small.output else tensor
        notes.append((colour, f"{name}: {_words(found)}"))
        for link in moving:
            for place in places:
                on = tuple(a + b for a, b in zip(place, link.hop, strict=True))
                if on in known:
                    parts.append(_arrow(centre(place), centre(on), number, link))
        if moving:
            leaves = tensor == small.output
            for place, cycle in _ends(small, map, moving[0], leaves).items():
                hop = tuple(-h if leaves else h for h in moving[0].hop)
                if tuple(a - b for a, b in zip(place, hop, strict=True)) in known:
                    continue  # it enters, or leaves, inside the array
                parts.append(_entry(centre(place), hop, number, cycle, colour, leaves))
        elif found:
            for place in places:
                x, y = centre(place)
                parts.append(
                    f'<rect x="{x - 5 + 12 * (number - 1):g}" y="{y - 5:g}" width="10" '
                    f'height="10" fill="{colour}"><title>{escaped(name)} stays</title></rect>'
                )
    boxes = [_box(centre(place), place) for place in places]
    across = max(centre(place)[0] for place in places)
    down = max(centre(place)[1] for place in places)
    width = max(across + _SIDE / 2 + _MARGIN, _WIDTH)
    height = down + _SIDE / 2 + _MARGIN + _LINE * len(notes)
    for line, (colour, text) in enumerate(notes):
        y = down + _SIDE / 2 + _MARGIN + _LINE * line
        parts.append(
            f'<rect x="14" y="{y - 9:g}" width="10" height="10" fill="{colour}"/>'
        )
        parts.append(_text(30, y, text, 12))
    parts.append(_text(14, 24, title, 14))
    return (
        '<svg role="img" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="sans-serif" fill="{INK}">'
        f"<title>{escaped(title or 'a spatial array')}</title>"
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/><defs>{_heads()}</defs>'
        f"{''.join(boxes)}{''.join(parts)}</svg>"
    )


def _places(nest: LoopNest, map: SpaceTimeMap) -> list[Place]:
    """Elements of the array, in order."""
    box = np.indices(nest.extents).reshape(len(nest.extents), -1)
    images = np.unique(np.array(map.space_rows(nest)) @ box, axis=1)
    return [tuple(place) for place in images.T.tolist()]


def _ends(
    nest: LoopNest, map: SpaceTimeMap, link: Link, written: bool
) -> dict[Place, int]:
    """Edge elements where a tensor enters (leaves), and the first cycle in which it does."""
    found: dict[Place, int] = {}
    first = min(entry(nest, map, z)[1] for z in np.ndindex(*nest.extents))
    sign = 1 if written else -1
    for z in np.ndindex(*nest.extents):
        other = (a + sign * b for a, b in zip(z, link.vector, strict=True))
        if not all(0 <= i < n for i, n in zip(other, nest.extents, strict=True)):
            place, cycle = entry(nest, map, z)
            found[place] = min(found.get(place, cycle - first), cycle - first)
    return found


def _words(found: tuple[Link, ...]) -> str:
    """Ways of a tensor in words."""
    if not found:
        return "used once"
    link = next((each for each in found if any(each.hop)), found[0])
    if link.kind == "systolic":
        steps = "register" if link.delay == 1 else "registers"
        return f"passed on by {link.hop}, {link.delay} {steps}"
    return {
        "stationary": "stays in the elements",
        "multicast": "on a bus to all of a line",
        "tree": "added up in one cycle, by a tree",
    }[link.kind]


def _heads() -> str:
    return "".join(
        f'<marker id="tip{n}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for n, colour in enumerate(_COLOURS)
    )


def _box(centre: tuple[float, float], place: Place) -> str:
    x, y = centre[0] - _SIDE / 2, centre[1] - _SIDE / 2
    name = ",".join(map(str, place))
    return (
        f'<rect class="pe" x="{x:g}" y="{y:g}" width="{_SIDE}" height="{_SIDE}" rx="4" '
        f'fill="#f7f7f7" stroke="#999999"><title>PE ({name})</title></rect>'
    )


def _line(
    begin: tuple[float, float], end: tuple[float, float], number: int, headed: bool
) -> str:
    colour = _COLOURS[number]
    tip = f' marker-end="url(#tip{number})"' if headed else ' stroke-dasharray="3 2"'
    return (
        f'<path d="M{begin[0]:.1f} {begin[1]:.1f}L{end[0]:.1f} {end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="1.6" fill="none"{tip}/>'
    )


def _arrow(
    begin: tuple[float, float],
    end: tuple[float, float],
    number: int,
    link: Link,
) -> str:
    """A link from the rim of one element to that of the next, beside those of others."""
    (x, y), (a, b) = begin, end
    length = max(abs(a - x), abs(b - y)) or 1
    dx, dy = (a - x) / length, (b - y) / length
    aside = 7 * (number - 1)
    rim = _SIDE / 2 + 1
    return _line(
        (x + dx * rim - dy * aside, y + dy * rim + dx * aside),
        (a - dx * rim - dy * aside, b - dy * rim + dx * aside),
        number,
        link.kind == "systolic",
    )


def _entry(
    centre: tuple[float, float],
    hop: Place,
    number: int,
    cycle: int,
    colour: str,
    written: bool,
) -> str:
    """An arrow into (out of) an edge element, with its first cycle."""
    down, right = (*hop, 0)[:2] if len(hop) == 2 else (hop[0], 0)
    size = max(abs(down), abs(right)) or 1
    dx, dy = right / size, down / size
    # The arrows out of the array lie on the line of those between its elements.
    aside = 7 * (number - 1) * (-1 if written else 1)
    rim, far = _SIDE / 2 + 1, _SIDE / 2 + 17
    x, y = centre[0] - dy * aside, centre[1] + dx * aside
    inner, outer = (x - dx * rim, y - dy * rim), (x - dx * far, y - dy * far)
    drawn = (
        _line(inner, outer, number, True)
        if written
        else _line(outer, inner, number, True)
    )
    label = (
        f'<text x="{x - dx * (far + 8):.1f}" y="{y - dy * (far + 8) + 4:.1f}" '
        f'font-size="10" text-anchor="middle" fill="{colour}">{cycle}</text>'
    )
    return drawn + label


def _text(x: float, y: float, text: str, size: int) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}">{escaped(text)}</text>'


def search_svg(found: Sequence[Found], front: Sequence[Found], title: str = "") -> str:
    """Draw cycles and energy of all candidates of a search, and the Pareto front.

    Args:
        found: all candidates.
        front: those on the front, fastest first.
        title: above the figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not found or not front:
        raise ValueError("search_svg: there is no candidate to draw")
    near = [
        each
        for each in found
        if each.cycles <= _NEAR * front[0].cycles
        and each.energy_pj <= _NEAR * front[-1].energy_pj
    ]
    with drawing(7.2, 4.2) as figure:
        axes = figure.subplots()
        axes.plot(
            [float(each.cycles) for each in near],
            [each.energy_pj * 1e-6 for each in near],
            ls="",
            marker=".",
            ms=3,
            color="#aaaaaa",
            label=f"{len(near):,} of {len(found):,} candidates: within {_NEAR} times the best",
        )
        axes.plot(
            [float(each.cycles) for each in front],
            [each.energy_pj * 1e-6 for each in front],
            marker="o",
            ms=4,
            lw=1.3,
            color=INK,
            label="Pareto front",
            drawstyle="steps-post",
        )
        ends = {"fastest": front[0], "least energy": front[-1]}
        for index, (name, each) in enumerate(ends.items()):
            shape = f"{each.array.rows}×{each.array.columns}"
            axes.plot(
                float(each.cycles),
                each.energy_pj * 1e-6,
                marker="*",
                ms=12,
                ls="",
                color=series_mark(index).colour,
                label=f"{name}: {shape}, {each.dataflow.split(' (')[0]}",
            )
        axes.set(
            xlabel="cycles of the products, waiting for the DRAM included",
            ylabel="energy in µJ, DRAM included",
            xscale="log",
            yscale="log",
            title=title,
        )
        plain_numbers(axes.yaxis)
        axes.legend(loc="upper right", fontsize=8)
        return svg(figure)
