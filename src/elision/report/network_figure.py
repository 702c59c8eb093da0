"""The design of a schedule as an SVG drawing: array, feeders, loaders, memory.

The array stands in the middle, its first axis to the right and its second down. A tensor
comes from above if its lanes lie along the first axis, from the left otherwise; results
leave downwards, or to the right where rows are gathered. In each element stands the cycle
of its first iteration.
"""

from typing import NamedTuple

from elision.accelerators.spatial.derived import links
from elision.accelerators.spatial.schedule import Design
from elision.common.printable import escaped
from elision.report.style import INK, TENSOR_COLOURS

__all__ = ["network_svg"]

#: Elements drawn along a side; a longer one ends with dots.
_DRAWN = 4

_STEP, _SIDE, _BOX, _GAP, _HEAD = 56, 34, 30, 34, 64
#: Width of a kernel beside the array, for its name, and of the gap to the next.
_WIDE, _APART = 92, 56

#: Colours of the tensors that are read, one after another.
_INPUTS = tuple(TENSOR_COLOURS[name] for name in ("input", "weight", "grad_output"))


class _Chain(NamedTuple):
    """A tensor's way between memory and array."""

    tensor: str
    colour: str
    kernels: tuple[str, ...]  # from the memory's side to the array's
    side: str


def network_svg(design: Design, title: str = "") -> str:
    """Draw a design.

    Args:
        design: of any number of axes; those beyond the second are lanes of an element.
        title: above the drawing.

    Example:
        >>> from elision.accelerators.spatial.schedule import read
        >>> drawn = network_svg(read("gemm.t2s").design(), "gemm")
        >>> drawn.startswith("<svg"), "A_feeder" in drawn
        (True, True)
    """
    return _Drawing(design).svg(title)


class _Drawing:
    def __init__(self, design: Design) -> None:
        self.design, made = design, design.structure
        sizes = [made.extent(loop) for loop in made.unrolled[:2]]
        self.size = (sizes[0], sizes[1] if len(sizes) > 1 else 1)
        self.shown = tuple(min(n, _DRAWN) for n in self.size)
        self.chains = [self._chain(n, t) for n, t in enumerate(design.nest.tensors)]
        above = self._longest("above")
        left = self._longest("left")
        self.left = 24 + (left + 1) * (_WIDE + _APART)
        self.top = _HEAD + (above + 1) * (_BOX + _GAP)
        self.right = self.left + self.shown[0] * _STEP
        self.bottom = self.top + self.shown[1] * _STEP
        self.parts: list[str] = []

    def _longest(self, side: str) -> int:
        return max([len(c.kernels) for c in self.chains if c.side == side], default=-1)

    def _chain(self, number: int, tensor: str) -> _Chain:
        made = self.design.structure
        kernels = made.chains.get(tensor, ())
        across = made.indexes(tensor, made.unrolled[0])
        side = "above" if across else "left"
        colour = _INPUTS[number % len(_INPUTS)]
        if made.is_output(tensor):
            colour = TENSOR_COLOURS["result"]
            kernels = kernels[::-1]
            gathered = {x for k in kernels for x, _ in made.kernels[k].gathered}
            side = "right" if made.unrolled[0] in gathered or not across else "below"
        return _Chain(tensor, colour, kernels, side)

    def svg(self, title: str) -> str:
        for chain in self.chains:
            self._draw_chain(chain)
        self._elements()
        self._hops()
        notes = self._notes()
        right = self._longest("right")
        below = self._longest("below")
        width = self.right + 24 + (right + 1) * (_WIDE + _APART)
        foot = self.bottom + (below + 1) * (_BOX + _GAP) + 18
        for line, (colour, text) in enumerate(notes):
            y = foot + 18 * line
            self._rect(16, y - 9, 10, 10, colour, colour)
            self._text(32, y, text, 12, anchor="start")
        height = foot + 18 * len(notes)
        width = max(width, 40 + 6.6 * max(len(text) for _, text in notes))
        self._text(16, 26, title or "an array and its I/O network", 14, anchor="start")
        loops = self.design.structure.unrolled
        size = " x ".join(
            f"{loop} {self.design.structure.extent(loop)}" for loop in loops
        )
        self._text(16, 44, f"{self.design.elements:,} PEs: {size}", 12, anchor="start")
        return (
            '<svg role="img" xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="sans-serif" fill="{INK}">'
            f"<title>{escaped(title or 'an array and its I/O network')}</title>"
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>'
            f"{_tips([c.colour for c in self.chains])}{''.join(self.parts)}</svg>\n"
        )

    def _notes(self) -> list[tuple[str, str]]:
        found = []
        for chain in self.chains:
            words = []
            for tile in self.design.tiles:
                if tile.tensor == chain.tensor:
                    copies = "two tiles" if tile.copies == 2 else "a tile"
                    words.append(
                        f"{tile.kernel} keeps {copies} of {tile.words:,} words, written in "
                        f"{tile.writes:,} cycles, read in {tile.reads:,}"
                    )
            ways = dict.fromkeys(
                f"{row['way']} along {row['along']}"
                for row in self.design.tensor_rows()
                if row["tensor"] == chain.tensor
            )
            text = "; ".join([", ".join(ways) or "a datum for each iteration", *words])
            found.append((chain.colour, f"{chain.tensor}: {text}"))
        return found

    def _centre(self, x: int, y: int) -> tuple[float, float]:
        return (
            self.left + (x + 0.5) * _STEP,
            self.top + (y + 0.5) * _STEP,
        )

    def _elements(self) -> None:
        design = self.design
        row = design.map.time_row(design.nest)
        weights = [row[design.nest.loop(loop)] for loop in design.structure.unrolled]
        weights = (*weights, 0)[:2]
        # A weight below zero counts from the other end.
        first = sum(
            min(0, w * (n - 1)) for w, n in zip(weights, self.size, strict=True)
        )
        for x in range(self.shown[0]):
            for y in range(self.shown[1]):
                a, b = self._centre(x, y)
                half = _SIDE / 2
                self._rect(a - half, b - half, _SIDE, _SIDE, "#eef4f8", INK)
                self._text(a, b + 4, str(x * weights[0] + y * weights[1] - first), 11)
        # The dots stand between the lanes, where no arrow is.
        if self.size[0] > self.shown[0]:
            self._text(
                self.right, self.top + min(_STEP, self.bottom - self.top) + 4, "…", 16
            )
        if self.size[1] > self.shown[1]:
            self._text(self.left + _STEP, self.bottom + 6, "⋮", 16)

    def _hops(self) -> None:
        """Arrows between elements; a line without a tip is a bus or a tree."""
        design = self.design
        for number, chain in enumerate(self.chains):
            for link in links(design.nest, design.map, chain.tensor):
                dx, dy = (*link.hop, 0)[:2]
                if not (dx or dy):
                    continue
                aside = 7 * (number - 1)
                for x in range(self.shown[0]):
                    for y in range(self.shown[1]):
                        if not self._inside(x + dx, y + dy):
                            continue
                        (a, b), (c, d) = (
                            self._centre(x, y),
                            self._centre(x + dx, y + dy),
                        )
                        rim = _SIDE / 2 + 1
                        shift = (-dy * aside, dx * aside)
                        self._line(
                            (a + dx * rim + shift[0], b + dy * rim + shift[1]),
                            (c - dx * rim + shift[0], d - dy * rim + shift[1]),
                            chain.colour,
                            tip=link.kind == "systolic",
                        )

    def _inside(self, x: int, y: int) -> bool:
        return 0 <= x < self.shown[0] and 0 <= y < self.shown[1]

    def _draw_chain(self, chain: _Chain) -> None:
        """Memory, then the kernels, the last of them a row of one for each lane."""
        made = self.design.structure
        axis = 0 if chain.side in ("above", "below") else 1
        lanes: list[int | None] = [*range(self.shown[axis])]
        places = [*chain.kernels[::-1], "memory"]
        written = made.is_output(chain.tensor)
        names = ["array", *places]
        channels = {(c.source, c.target): c for c in self.design.channels}
        for far, name in enumerate(places):
            split = lanes if far == 0 and name != "memory" else [None]
            for lane in split:
                x, y, w, h = self._place(chain.side, far, lane)
                self._rect(x, y, w, h, "#ffffff", chain.colour, name == "memory")
            x, y, w, h = self._place(chain.side, far, None)
            if far == 0 and name != "memory":
                self._name_lanes(chain, name)
            else:
                label = f"memory: {chain.tensor}" if name == "memory" else name
                self._text(x + w / 2, y + h / 2 + 4, label, 11)
        for far, (near, name) in enumerate(zip(names, places, strict=False)):
            pair = (near, name) if written else (name, near)
            channel = channels.get(pair)
            ports = lanes if far == 0 else [None]
            if far == 1 and channel is not None and channel.ports > 1:
                ports = lanes
            if far == 1 and self._at_end(chain, places[0], axis):
                ports = lanes[:1]
                self._pass_along(chain, lanes)
            for lane in ports:
                begin, end = self._gap(chain.side, far, lane)
                if written:
                    begin, end = end, begin
                self._line(begin, end, chain.colour)
            if channel is not None:
                begin, end = self._gap(chain.side, far, ports[-1])
                vector = f" x {channel.vector}" if channel.vector > 1 else ""
                text = f"{channel.ports}{vector}"
                a, b = (begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2
                if axis == 0:
                    self._text(a + 6, b + 4, text, 10, chain.colour, "start")
                else:
                    self._text(a, b - 5, text, 10, chain.colour)

    def _at_end(self, chain: _Chain, name: str, axis: int) -> bool:
        """Whether a kernel beside the array takes or gives its data at one end."""
        made = self.design.structure
        if name not in made.kernels or axis >= len(made.unrolled):
            return False
        kernel = made.kernels[name]
        return made.unrolled[axis] in dict(kernel.scattered + kernel.gathered)

    def _pass_along(self, chain: _Chain, lanes: list[int | None]) -> None:
        for lane in lanes[:-1]:
            assert lane is not None
            x, y, w, h = self._place(chain.side, 0, lane)
            a, b, _, _ = self._place(chain.side, 0, lane + 1)
            if chain.side in ("above", "below"):
                self._line((x + w, y + h / 2), (a, b + h / 2), chain.colour)
            else:
                self._line((x + w / 2, y + h), (a + w / 2, b), chain.colour)

    def _name_lanes(self, chain: _Chain, name: str) -> None:
        x, y, w, h = self._place(chain.side, 0, 0)
        if chain.side in ("above", "below"):
            self._text(self.left - 4, y + h / 2 + 4, name, 11, INK, "end")
        else:
            self._text(x + w / 2, self.top + 2, name, 11)

    def _place(
        self, side: str, far: int, lane: int | None
    ) -> tuple[float, float, float, float]:
        """x, y, width and height of a kernel's box, or of one lane of it."""
        across, down = self.right - self.left, self.bottom - self.top
        if side in ("above", "below"):
            gap = _GAP + far * (_BOX + _GAP)
            y = self.top - gap - _BOX if side == "above" else self.bottom + gap
            if lane is None:
                return self.left, y, across, _BOX
            return self.left + lane * _STEP + 8, y, _STEP - 16, _BOX
        gap = _APART + far * (_WIDE + _APART)
        x = self.left - gap - _WIDE if side == "left" else self.right + gap
        if lane is None:
            return x, self.top + 8, _WIDE, down - 16
        return x + _WIDE / 4, self.top + lane * _STEP + 12, _WIDE / 2, _STEP - 24

    def _gap(
        self, side: str, far: int, lane: int | None
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """From a kernel to its neighbour towards the array, at a lane's place."""
        x, y, w, h = self._place(side, far, lane if far == 0 else None)
        if side in ("above", "below"):
            at = self._centre(0 if lane is None else lane, 0)[0]
            if lane is None:
                at = (self.left + self.right) / 2
            near = self.top if side == "above" else self.bottom
            if far == 0:
                inner = near + (10 if side == "above" else -10)
            else:
                _, b, _, height = self._place(side, far - 1, None)
                inner = b if side == "above" else b + height
            return (at, y + h if side == "above" else y), (at, inner)
        at = self._centre(0, 0 if lane is None else lane)[1]
        if lane is None:
            at = (self.top + self.bottom) / 2
        near = self.left if side == "left" else self.right
        if far == 0:
            inner = near + (10 if side == "left" else -10)
        else:
            a, _, wide, _ = self._place(side, far - 1, 0 if far == 1 else None)
            inner = a if side == "left" else a + wide
        return (x + w if side == "left" else x, at), (inner, at)

    def _rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        fill: str,
        stroke: str,
        dashed: bool = False,
    ) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" '
            f'fill="{fill}" stroke="{stroke}"{dash}/>'
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: int,
        colour: str = INK,
        anchor: str = "middle",
    ) -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{colour}">{escaped(text)}</text>'
        )

    def _line(
        self,
        begin: tuple[float, float],
        end: tuple[float, float],
        colour: str,
        tip: bool = True,
    ) -> None:
        marker = f' marker-end="url(#{_tip(colour)})"' if tip else ""
        self.parts.append(
            f'<path d="M{begin[0]:g} {begin[1]:g}L{end[0]:g} {end[1]:g}" '
            f'stroke="{colour}" stroke-width="1.5" fill="none"{marker}/>'
        )


def _tip(colour: str) -> str:
    return f"network-{colour[1:]}"


def _tips(colours: list[str]) -> str:
    tips = "".join(
        f'<marker id="{_tip(colour)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for colour in colours
    )
    return f"<defs>{tips}</defs>"
