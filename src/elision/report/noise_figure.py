"""Codec noise over batch noise, layer by layer."""

from elision.report.style import INK, drawing, series_mark, svg

__all__ = ["noise_by_layer"]


def noise_by_layer(
    layers: list[str], shares: dict[str, list[float]], limit: float, title: str
) -> str:
    """A row a layer of a model, with a dot a policy, logarithmic.

    Args:
        layers: names, in the order of the forward pass.
        shares: policy -> codec variance over batch variance of each layer.
        limit: share up to which a codec counts as hidden, drawn as a line.
        title: of the figure.
    """
    with drawing(9.2, 1.1 + 0.17 * len(layers)) as figure:
        axes = figure.subplots()
        places = range(len(layers))
        for index, (policy, values) in enumerate(shares.items()):
            mark = series_mark(index)
            axes.plot(
                values, places, mark.marker, color=mark.colour, label=policy, ms=4.5
            )
        axes.axvline(limit, color=INK, linewidth=1, linestyle="--")
        axes.annotate(
            "hidden left of this",
            (limit, 0),
            (-3, 0),
            textcoords="offset points",
            ha="right",
            fontsize=7,
        )
        axes.set(title=title, xscale="log")
        axes.set_yticks(places, layers, fontsize=7)
        axes.invert_yaxis()
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
        return svg(figure)
