"""Style of figures: one palette, one typeface, SVG small enough to inline."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["INK", "PALETTE", "PRODUCT_COLOURS", "drawing", "plain_numbers", "svg"]

#: Okabe and Ito's palette, told apart by colour-blind readers (jfly.uni-koeln.de/color).
PALETTE = ("#444444", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

#: The three products, everywhere in the same colours, and both gradients interleaved.
PRODUCT_COLOURS = {
    "forward": "#0072B2",
    "input_grad": "#E69F00",
    "weight_grad": "#009E73",
    "input_grad+weight_grad": "#CC79A7",
}

INK = "#333333"

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
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
#: Characters that no XML may hold.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
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


def plain_numbers(axis: "Axis") -> None:
    """Have a logarithmic axis write its numbers out, between powers as well."""
    axis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.set_minor_formatter(lambda value, _: f"{value:.4g}")


def svg(figure: "Figure") -> str:
    """The figure as an inline SVG element, without a declaration or a date."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _write_powers_as_text(axis)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = _CONTROLS.sub("\ufffd", text.getvalue())
    return drawn[drawn.index("<svg") :]
