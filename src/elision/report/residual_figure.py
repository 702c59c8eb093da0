"""Accuracy of ternary residual networks over the multiplications that are left."""

from collections.abc import Mapping, Sequence

from elision.report.style import INK, drawing, series_mark, svg

__all__ = ["accuracy_over_multiplications"]


def accuracy_over_multiplications(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    plain: Mapping[str, float],
    title: str = "Residual terms enabled, from none to all",
) -> str:
    """One line a network; a dashed line at the accuracy of the plain one.

    Args:
        curves: of each network, the rows of ``model.ternary.curve``, with ``fewer``
            (multiplications of the plain network over those left), ``mean_terms`` and
            ``accuracy``.
        plain: accuracy of each plain network, by the same names.
        title: of the figure.

    Returns:
        An SVG element.

    Raises:
        ValueError: there is no curve.

    Example:
        >>> row = {"fewer": 30.0, "mean_terms": 1.0, "accuracy": 0.9}
        >>> accuracy_over_multiplications({"cnn": [row]}, {"cnn": 0.95})[:4]
        '<svg'
    """
    if not curves:
        raise ValueError("accuracy_over_multiplications: give at least one curve")
    with drawing(9.2, 3.2) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for i, (name, rows) in enumerate(curves.items()):
            mark = series_mark(i)
            accuracy = [100 * row["accuracy"] for row in rows]
            for axes, column in zip(panels, ("mean_terms", "fewer"), strict=True):
                axes.plot(
                    [row[column] for row in rows],
                    accuracy,
                    color=mark.colour,
                    marker=mark.marker,
                    ms=4,
                    label=name,
                )
                if name in plain:
                    level = 100 * plain[name]
                    axes.axhline(
                        level, color=mark.colour, linewidth=0.8, linestyle="--"
                    )
        panels[0].set(xlabel="ternary terms a block", ylabel="accuracy, %", title=title)
        panels[1].set(xlabel="times fewer multiplications", xscale="log")
        panels[1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panels[1].xaxis.set_minor_formatter(
            lambda value, _: f"{value:g}" if f"{value:g}"[0] in "235" else ""
        )
        panels[1].annotate(
            "dashed: plain float32 network",
            (0.02, 0.03),
            xycoords="axes fraction",
            fontsize=7,
            color=INK,
        )
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            fontsize=7.5,
        )
        return svg(figure)
