"""Style of figures: one palette, one typeface, SVG small enough to inline."""

import hashlib
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elision.common.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "LEGEND",
    "LETTER",
    "PALETTE",
    "POINTS",
    "PRODUCT_COLOURS",
    "SERIES",
    "SLOT_COLOURS",
    "TENSOR_COLOURS",
    "TITLE",
    "TRACK_COLOURS",
    "Mark",
    "drawing",
    "further_lines",
    "marks_of",
    "plain_numbers",
    "prefixed_numbers",
    "save",
    "series_mark",
    "svg",
    "wrapped",
]

# One colour, one meaning: recipes, products, tensors, uses of a multiplier, parts of a
# machine, and whatever else is told apart in a figure each have colours of their own. All but
# recipes' have a contrast of 3 to 1 with white (WCAG 2.2, 1.4.11), and those of a group differ
# under the simulated vision of Machado et al. (2009); the tests hold both.

#: Recipes: Okabe and Ito's palette, told apart by colour-blind readers
#: (jfly.uni-koeln.de/color).
PALETTE = ("#444444", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

#: The three products, and both gradients interleaved: of Tol's muted scheme, its rose darker
#: (sronpersonalpages.nl/~pault).
PRODUCT_COLOURS = {
    "forward": "#332288",
    "input_grad": "#B84B5F",
    "weight_grad": "#117733",
    "input_grad+weight_grad": "#882255",
}

#: Operands of products by their names, and what is computed from two.
TENSOR_COLOURS = {
    "input": "#16909A",
    "weight": "#B87D19",
    "grad_output": "#98002A",
    "result": "#5D40A0",
}

#: Uses of multipliers and cycles: of Tol's medium-contrast scheme, and a grey.
SLOT_COLOURS = {
    "useful": "#004488",
    "with a zero": "#994455",
    "redundant": "#997700",
    "idle": "#919191",
}

#: Parts of a machine, or of several, over time, dark enough for white letters (4.5 to 1).
TRACK_COLOURS = {
    "product": "#452878",
    "north port": "#347F87",
    "west port": "#B84008",
    "PEs": "#613327",
    "south port": "#9805E5",
    "link": "#726AB3",
}

#: Machines, policies, processors, formats, layers, laws: whatever is no recipe and has no
#: colours of its own, one after another.
SERIES = ("#454E0A", "#C63FA8", "#50977F", "#6A3FD0", "#9B9508", "#911180")

INK = "#333333"

#: Markers of the recipes beyond one palette, two palettes and so on.
_MARKERS = "osD^v"

#: Width of a letter over the size of the type, on average, in a sans-serif typeface.
LETTER = 0.56
#: Points of type in an inch.
POINTS = 72
#: Size of titles in points, and inches that names may take in a legend beside panels.
TITLE, LEGEND = 9.5, 2.2
#: Of pictures without lines, such as PNG: sharp in print (own choice).
_DOTS_PER_INCH = 200

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": TITLE,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "elision",
    "figure.constrained_layout.use": True,
    # A dollar in the name of a layer or a recipe is a dollar.
    "text.parse_math": False,
}

#: A power in the mathematics that matplotlib writes on logarithmic axes.
_POWER = re.compile(
    r"\$\\mathdefault\{(?P<sign>-?)(?:(?P<times>[^{}]+)\\times)?(?P<base>[^{}]+)"
    r"\^\{(?P<power>[^{}]+)\}\}\$"
)
#: Characters that no XML may hold, and those that turn the writing around.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]")
_RAISED = str.maketrans("0123456789-\u2212.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻·")


@contextmanager
def drawing(width: float, height: float) -> Iterator["Figure"]:
    """A figure of ``width`` x ``height`` inches in the house style, closed at the end.

    Nothing is shown and no window system is touched.
    """
    # Imported here: it takes a second, and most commands draw nothing.
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        yield figure


def _write_powers_as_text(axis: "Axis") -> None:
    """Have a logarithmic axis write 10² instead of mathematics."""
    from matplotlib.ticker import LogFormatterSciNotation

    class Powers(LogFormatterSciNotation):
        """The same ticks; their labels as text."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return _plain(super().__call__(x, pos))

    for formatter, replace in (
        (axis.get_major_formatter(), axis.set_major_formatter),
        (axis.get_minor_formatter(), axis.set_minor_formatter),
    ):
        if type(formatter) is LogFormatterSciNotation:
            replace(
                Powers(
                    base=formatter._base,  # pyright: ignore[reportAttributeAccessIssue]
                    labelOnlyBase=formatter.labelOnlyBase,
                    minor_thresholds=formatter.minor_thresholds,
                )
            )


def _plain(text: str) -> str:
    r"""Matplotlib's mathematics of a tick as text.

    Example:
        >>> _plain(r"$\mathdefault{10^{-2}}$"), _plain(r"$\mathdefault{2\times10^{3}}$")
        ('10⁻²', '2×10³')
    """
    if found := _POWER.fullmatch(text):
        times = f"{found['times']}×" if found["times"] else ""
        raised = found["power"].translate(_RAISED)
        return f"{found['sign']}{times}{found['base']}{raised}"
    return text.removeprefix("$\\mathdefault{").removesuffix("}$")


def prefixed_numbers(axis: "Axis", unit: str = "") -> None:
    """Have a linear axis write ``20 M``, or ``20 ms``, where it would write an offset.

    Args:
        axis: of whole counts; or of anything that has a unit.
        unit: joins the prefix.
    """
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(unit, sep=" "))


def plain_numbers(axis: "Axis") -> None:
    """Have a logarithmic axis write its numbers out, between powers as well."""
    axis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.set_minor_formatter(lambda value, _: f"{value:.4g}")


@dataclass(frozen=True)
class Mark:
    """How one recipe, machine or format is drawn, in every figure of a page.

    Attributes:
        colour: as ``#rrggbb``.
        marker: of matplotlib.
    """

    colour: str
    marker: str


def marks_of(recipes: Sequence[str]) -> dict[str, Mark]:
    """Marks by recipe, which depend on the order alone: one colour, one meaning.

    Example:
        >>> marks_of(["dense", "swat"])["swat"]
        Mark(colour='#0072B2', marker='o')
    """
    beyond = len(PALETTE), len(_MARKERS)
    return {
        recipe: Mark(PALETTE[i % beyond[0]], _MARKERS[i // beyond[0] % beyond[1]])
        for i, recipe in enumerate(recipes)
    }


def series_mark(index: int) -> Mark:
    """Mark of what is no recipe, by its place among those of a figure.

    Example:
        >>> series_mark(0), series_mark(len(SERIES)).marker
        (Mark(colour='#454E0A', marker='o'), 's')
    """
    colour = SERIES[index % len(SERIES)]
    return Mark(colour, _MARKERS[index // len(SERIES) % len(_MARKERS)])


def wrapped(name: str, inches: float, points: float) -> str:
    """A name in lines that fit a width, broken behind its punctuation if it can be.

    Args:
        name: of a recipe or a machine, which has few spaces.
        inches: width.
        points: size of the type.

    Example:
        >>> wrapped("meprop-unified:keep=0.1", inches=1.2, points=9.5).splitlines()
        ['meprop-unified:', 'keep=0.1']
    """
    letters = max(4, int(inches * POINTS / (points * LETTER)))
    lines = [""]
    for part in re.findall(r"[^\s,:+(]*[\s,:+(]?", name):
        if len(lines[-1] + part) > letters and lines[-1]:
            lines.append("")
        lines[-1] += part
    short = (
        line[i : i + letters] for line in lines for i in range(0, len(line), letters)
    )
    return "\n".join(short)


def further_lines(names: Sequence[str]) -> float:
    r"""Inches of the lines beyond the first that titles take, for a figure to be higher by.

    Args:
        names: of :func:`wrapped`.

    Example:
        >>> further_lines(["swat", "rigl:\nsparsity=0.9"]) > further_lines(["swat"])
        True
    """
    lines = max(name.count("\n") for name in names)
    return lines * 1.2 * TITLE / POINTS  # matplotlib's spacing of lines


def svg(figure: "Figure", hover: Mapping[str, str] | None = None) -> str:
    """The figure as an inline SVG element, without a declaration or a date.

    Args:
        figure: with titles, which name the element for those who do not see it.
        hover: ``gid`` of an artist -> text that is shown when it is pointed at.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _write_powers_as_text(axis)
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawn = text.getvalue()
    drawn = _own_ids(_with_texts(drawn[drawn.index("<svg") :], hover or {}))
    titles = (axes.get_title(loc="left") for axes in figure.axes)
    said = [*filter(None, titles), figure.get_supxlabel(), figure.get_supylabel()]
    name = html.escape("; ".join(filter(None, said)).replace("\n", ""))
    drawn = drawn.replace("<svg ", '<svg role="img" ', 1)
    return _CONTROLS.sub("\ufffd", drawn.replace(">", f"><title>{name}</title>", 1))


def save(figure: "Figure", path: Path, hover: Mapping[str, str] | None = None) -> None:
    """Write a figure to a file, the same bytes whenever it is drawn.

    Args:
        figure: its artists.
        path: of an SVG, a PDF or a PNG, as its suffix says.
        hover: for an SVG, see :func:`svg`.

    Raises:
        OSError: it cannot be written.
    """
    form = path.suffix[1:].lower()
    if form == "svg":
        write_text(path, svg(figure, hover))
        return
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _write_powers_as_text(axis)
    undated = {"CreationDate": None} if form == "pdf" else {"Software": None}
    with replacing(path) as temporary:
        figure.savefig(temporary, format=form, dpi=_DOTS_PER_INCH, metadata=undated)


def _with_texts(drawn: str, hover: Mapping[str, str]) -> str:
    """Groups of artists with the text that is shown when they are pointed at."""

    def titled(found: re.Match[str]) -> str:
        text = hover.get(html.unescape(found[1]))
        if text is None:
            return found[0]
        return f'<g class="point"><title>{html.escape(text)}</title>'

    return re.sub(r'<g id="([^"]*)">', titled, drawn)


def _own_ids(drawn: str) -> str:
    """The drawing with only the ids that it refers to, and none that another has.

    A page holds many drawings, and an id must be there once.
    """
    own = hashlib.sha256(drawn.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', drawn))
    for name in used:
        drawn = re.sub(
            rf'(id="|#){re.escape(name)}(?=["\)])', rf"\g<1>{name}-{own}", drawn
        )
    return re.sub(rf' id="(?![^"]*-{own}")[^"]*"', "", drawn)
