"""Figures of the precision study: curves with spread, and prices by format."""

from collections.abc import Mapping, Sequence

import numpy as np

from elision.report.style import INK, PALETTE, drawing, svg

__all__ = ["curves_svg", "prices_svg"]

#: Recipes a panel, each with the reference: more lines are not told apart.
_LINES = 4

#: Share from which the map's colours are light enough for dark figures.
_LIGHT_ABOVE = 0.7

#: Mean and deviation over seeds, epoch by epoch.
Curve = tuple[Sequence[float], Sequence[float]]


def curves_svg(
    accuracy: Mapping[str, Curve], loss: Mapping[str, Curve], reference: str
) -> str:
    """Accuracy above, training loss below, a few recipes a column beside the reference.

    Args:
        accuracy: recipe -> means and standard deviations by epoch, in [0, 1].
        loss: likewise.
        reference: recipe that is in every panel, dark.
    """
    others = [name for name in accuracy if name != reference]
    columns = [others[i : i + _LINES] for i in range(0, len(others), _LINES)] or [[]]
    with drawing(9.2, 5.0) as figure:
        grid = figure.subplots(
            2, len(columns), squeeze=False, sharex=True, sharey="row"
        )
        for panels, values in zip(grid, (accuracy, loss), strict=True):
            for axes, names in zip(panels, columns, strict=True):
                shown = [name for name in (reference, *names) if name in values]
                for colour, name in zip(PALETTE, shown, strict=False):
                    middle, spread = map(np.asarray, values[name])
                    epochs = np.arange(1, len(middle) + 1)
                    axes.fill_between(
                        epochs,
                        middle - spread,
                        middle + spread,
                        color=colour,
                        alpha=0.15,
                        lw=0,
                    )
                    axes.plot(
                        epochs, middle, color=colour, marker="o", ms=3, label=name
                    )
                axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid[0]:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
            axes.legend(loc="lower right", fontsize=8)
        for axes in grid[1]:
            axes.set(xlabel="epoch", yscale="log")
        grid[0, 0].set(title="Test accuracy")
        grid[1, 0].set(title="Training loss")
        figure.supxlabel("band: one standard deviation over the seeds", fontsize=8)
        return svg(figure)


def prices_svg(
    recipes: Sequence[str],
    machines: Sequence[str],
    energy: np.ndarray,
    area: np.ndarray,
) -> str:
    """Energy and area over those of the reference on the same machine, in figures.

    Args:
        recipes: rows.
        machines: columns.
        energy: shape (recipes, machines), shares of the reference's.
        area: likewise; NaN where a machine has no area.
    """
    with drawing(9.2, 1.5 + 0.27 * len(recipes)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        titles = ("Energy on chip, over float32's", "Area, over float32's")
        for axes, values, title in zip(panels, (energy, area), titles, strict=True):
            axes.imshow(
                np.ma.masked_invalid(values),
                cmap="cividis",
                vmin=0,
                vmax=1,
                aspect="auto",
            )
            axes.grid(visible=False)
            for (row, column), value in np.ndenumerate(values):
                text = "–" if np.isnan(value) else f"{value:.2f}"
                light = not np.isnan(value) and value < _LIGHT_ABOVE
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if light else INK,
                )
            axes.set_xticks(range(len(machines)), machines, rotation=40, ha="right")
            axes.set_yticks(range(len(recipes)), recipes)
            axes.set(title=title)
            axes.tick_params(length=0)
        return svg(figure)
