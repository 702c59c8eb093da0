"""Style of figures: one palette, one typeface, SVG small enough to inline."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["INK", "PALETTE", "PRODUCT_COLOURS", "drawing", "svg"]

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
}


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


def svg(figure: "Figure") -> str:
    """The figure as an inline SVG element, without a declaration or a date."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
