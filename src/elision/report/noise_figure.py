"""Codec noise over batch noise, layer by layer."""

from elision.report.style import INK, PALETTE, drawing, svg

__all__ = ["noise_by_layer"]


def noise_by_layer(
    layers: list[str], shares: dict[str, list[float]], limit: float, title: str
) -> str:
    """One line a policy over the layers of a model, logarithmic.

    Args:
        layers: names, in the order of the forward pass.
        shares: policy -> codec variance over batch variance of each layer.
        limit: share up to which a codec counts as hidden, drawn as a line.
        title: of the figure.
    """
    with drawing(9.2, 2.9) as figure:
        axes = figure.subplots()
        places = range(len(layers))
        for colour, (policy, values) in zip(PALETTE * 4, shares.items(), strict=False):
            axes.plot(places, values, color=colour, label=policy, marker="o", ms=3.5)
        axes.axhline(limit, color=INK, linewidth=1, linestyle="--")
        axes.annotate(
            "hidden below", (0, limit), (2, 3), textcoords="offset points", fontsize=7
        )
        axes.set(title=title, yscale="log")
        axes.set_xticks(places, layers, rotation=90 if len(layers) > 8 else 0)
        axes.tick_params(axis="x", labelsize=7)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
        return svg(figure)
