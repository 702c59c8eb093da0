"""The floors of the library, drawn from what its modules really import.

``python docs/floors.py`` writes ``docs/figures/floors.svg``, as every build of the
documentation does; ``--check`` fails where the file is not what the imports give.

The contract in ``pyproject.toml`` says which room stands on which floor, the source
which room imports which. An arrow that a path of other arrows implies is left out.
"""

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import combinations, islice, pairwise, permutations
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "elision"
FIGURE = ROOT / "docs" / "figures" / "floors.svg"

_WIDTH, _FLOOR, _BOX, _MARGIN = 860, 74, (118, 34), 16
_INK, _FILL, _LINE = "#333333", "#eef4f8", "#0072B2"

Floors = list[list[str]]
Imports = dict[str, set[str]]


def floors() -> Floors:
    """The rooms of each floor by the contract, from the top down.

    A room in parentheses may be missing.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c["type"] == "layers")
    named = [[room.strip(" ()") for room in floor.split("|")] for floor in layers]
    return [[r for r in floor if (PACKAGE / r).is_dir()] for floor in named]


def imports() -> Imports:
    """The rooms that each room imports, in function bodies and for types as well."""
    found: Imports = {p.parent.name: set() for p in PACKAGE.glob("*/__init__.py")}
    for room, others in found.items():
        for path in (PACKAGE / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for name in _imported(node):
                    package, _, rest = name.partition(".")
                    if package == "elision" and rest.split(".")[0] in found:
                        others.add(rest.split(".")[0])
        others.discard(room)
    return found


def _imported(node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def arrows(imported: Imports) -> list[tuple[str, str]]:
    """The imports that no path of other imports implies, as (importer, imported).

    Raises:
        RecursionError: rooms import one another in a circle.
    """

    def reached(room: str) -> set[str]:
        return imported[room].union(*map(reached, imported[room]))

    return sorted(
        (room, other)
        for room, others in imported.items()
        for other in others
        if not any(other in reached(between) for between in others)
    )


def figure() -> str:
    """The floors as SVG: a box for each room, the arrows between them."""
    stories, imported = floors(), imports()
    level = {room: n for n, story in enumerate(stories) for room in story}
    # A long arrow takes a place of its own on every floor that it crosses.
    paths = [
        [
            upper,
            *((upper, lower, n) for n in range(level[upper] + 1, level[lower])),
            lower,
        ]
        for upper, lower in arrows(imported)
    ]
    rows: list[list[object]] = [
        [*story, *(p for path in paths for p in path[1:-1] if p[2] == n)]
        for n, story in enumerate(stories)
    ]
    x = _places(rows, paths)
    height = _FLOOR * len(rows)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13" '
        f'fill="{_INK}">',
        "<title>The rooms of elision on their floors; arrows are imports</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{_LINE}"/>'
        "</marker></defs>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for n in range(len(rows)):
        y = _FLOOR * (n + 1) - 0.5
        drawn.append(f'<path d="M0 {y}H{_WIDTH}" stroke="#dddddd"/>')
    floor_of = {item: n for n, row in enumerate(rows) for item in row}
    for path in paths:
        drawn.append(_arrow([(x[item], floor_of[item]) for item in path]))
    for room, n in level.items():
        drawn.append(_box(room, x[room], n, sorted(imported[room])))
    return "\n".join([*drawn, "</svg>\n"])


def _places(rows: list[list[object]], paths: list[list[object]]) -> dict[object, float]:
    """Centre of each item, rows being sorted so that arrows cross seldom and are short."""
    steps = [step for path in paths for step in pairwise(path)]
    beside = {item: [] for row in rows for item in row}
    for upper, lower in steps:
        beside[upper].append(lower)
        beside[lower].append(upper)
    x = {item: place for row in rows for item, place in _spread(row)}

    def middle(item: object) -> tuple[float, str]:
        return mean([x[b] for b in beside[item]] or [x[item]]), str(item)

    def cost(found: dict[object, float]) -> tuple[int, float]:
        crossings = sum(
            (found[a] - found[c]) * (found[b] - found[d]) < 0
            for (a, b), (c, d) in combinations(steps, 2)
            if floor[a] == floor[c]
        )
        return crossings, sum(abs(found[a] - found[b]) for a, b in steps)

    floor = {item: n for n, row in enumerate(rows) for item in row}
    best = x
    # From every order of the widest floor, rows are sorted by their neighbours' places.
    widest = max(rows, key=len)
    for order in islice(permutations(widest), 720):
        x |= dict(_spread(order))
        for row in (row for row in (*rows[::-1], *rows) * 2 if row is not widest):
            x |= dict(_spread(sorted(row, key=middle)))
        best = min(best, dict(x), key=cost)
    return best


def _spread(row: Iterable[object]) -> Iterator[tuple[object, float]]:
    """The items of a floor from left to right, at equal gaps."""
    row = list(row)
    wide = [_BOX[0] + 14 if isinstance(item, str) else 34 for item in row]
    gap = (_WIDTH - 2 * _MARGIN - sum(wide)) / (len(row) + 1)
    left = _MARGIN + gap
    for item, width in zip(row, wide, strict=True):
        yield item, left + width / 2
        left += width + gap


def _arrow(points: list[tuple[float, int]]) -> str:
    """A curve from under a box through places between boxes to the top of another."""
    half = _BOX[1] / 2
    (x, n), *rest = points
    y = _FLOOR * (n + 0.5) + half
    curve = f"M{x:.1f} {y:.1f}"
    for place, floor in rest:
        top = _FLOOR * (floor + 0.5) - half
        middle = (y + top) / 2
        curve += f"C{x:.1f} {middle:.1f} {place:.1f} {middle:.1f} {place:.1f} {top:.1f}"
        x, y = place, top
        if (place, floor) != points[-1]:
            y = top + 2 * half
            curve += f"V{y:.1f}"
    return (
        f'<path d="{curve}" fill="none" stroke="{_LINE}" stroke-width="1.3" '
        'marker-end="url(#tip)"/>'
    )


def _box(room: str, x: float, floor: int, others: list[str]) -> str:
    width, height = _BOX
    y = _FLOOR * (floor + 0.5)
    about = f"imports {', '.join(others)}" if others else "imports no other room"
    return (
        f'<g><title>{room} {about}</title><rect x="{x - width / 2:.1f}" '
        f'y="{y - height / 2:.1f}" width="{width}" height="{height}" rx="5" '
        f'fill="{_FILL}" stroke="{_INK}"/><text x="{x:.1f}" y="{y + 4.5:.1f}" '
        f'text-anchor="middle">{room}/</text></g>'
    )


def write() -> None:
    """Write the figure, if it is not there or another."""
    if not is_current():
        FIGURE.write_text(figure(), encoding="utf-8")


def is_current() -> bool:
    """True where the file holds the figure that the imports give."""
    return FIGURE.is_file() and FIGURE.read_text(encoding="utf-8") == figure()


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        write()
    elif not is_current():
        sys.exit(f"{FIGURE} is not what the imports give: run python docs/floors.py")
