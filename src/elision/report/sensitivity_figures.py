"""Figures of the perturbation view, from plain numbers to SVG strings."""

from collections.abc import Mapping, Sequence

import numpy as np

from elision.report.style import INK, TENSOR_COLOURS, drawing, series_mark, svg

__all__ = ["bits_by_layer", "format_map", "noise_dots", "predicted_against_measured"]

#: Below this share of the largest value a logarithmic axis shows nothing more.
_FLOOR = 1e-7


def noise_dots(layers: list[str], noises: Mapping[str, list[float]], title: str) -> str:
    """Noise to signal over the layers, logarithmic, a dot for each arithmetic.

    Args:
        layers: names, in the order of the forward pass.
        noises: arithmetic -> noise of each layer.
        title: of the figure.
    """
    with drawing(9.2, 2.6 + 0.055 * max(map(len, layers))) as figure:
        axes = figure.subplots()
        places = range(len(layers))
        for index, (name, values) in enumerate(noises.items()):
            shown = [value if value > 0 else np.nan for value in values]
            mark = series_mark(index)
            axes.plot(places, shown, mark.marker, color=mark.colour, label=name, ms=4.5)
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        axes.set(title=title, yscale="log", ylabel="noise / signal")
        upright = len(layers) > 8
        size = 5.5 if len(layers) > 30 else 7
        axes.set_xticks(places, layers, rotation=90 if upright else 0, fontsize=size)
        axes.margins(x=0.01)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
        return svg(figure)


def predicted_against_measured(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    titles: Mapping[str, str],
) -> str:
    """Magnitude of the loss's change, predicted across and measured up, a panel an operand.

    Args:
        panels: operand -> series (a format) -> predicted and measured values.
        titles: operand -> title of its panel.
    """
    with drawing(9.2, 3.4) as figure:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (operand, series) in zip(row, panels.items(), strict=True):
            everything = np.abs(
                [v for pair in series.values() for vs in pair for v in vs]
            )
            top = float(everything.max(initial=0.0)) or 1.0
            low = max(float(everything[everything > 0].min(initial=top)), _FLOOR * top)
            axes.plot([low, top], [low, top], color="#999999", linewidth=1, zorder=1)
            for index, (name, (predicted, measured)) in enumerate(series.items()):
                x, y = (np.maximum(np.abs(v), low) for v in (predicted, measured))
                mark = series_mark(index)
                axes.scatter(
                    x,
                    y,
                    s=16,
                    color=mark.colour,
                    marker=mark.marker,
                    label=name,
                    alpha=0.8,
                    lw=0,
                )
            axes.set(xscale="log", yscale="log", title=titles[operand])
            axes.set(xlabel="predicted, second order", ylabel="measured")
            axes.tick_params(labelsize=7)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
        return svg(figure)


def bits_by_layer(
    layers: list[str],
    bits: Mapping[str, list[float]],
    names: Mapping[str, str],
    title: str,
) -> str:
    """Bits of each operand of each layer, a bar for each operand.

    Args:
        layers: names, in the order of the forward pass.
        bits: operand -> bits in each layer.
        names: operand -> what the legend calls it.
        title: of the figure.
    """
    with drawing(9.2, 2.2 + 0.055 * max(map(len, layers))) as figure:
        axes = figure.subplots()
        width = 0.8 / len(bits)
        for i, (operand, values) in enumerate(bits.items()):
            places = np.arange(len(layers)) + (i - (len(bits) - 1) / 2) * width
            axes.bar(
                places,
                values,
                width * 0.92,
                color=TENSOR_COLOURS[operand],
                label=names[operand],
            )
        axes.set(title=title, ylabel="bits")
        upright = len(layers) > 8
        axes.set_xticks(
            range(len(layers)), layers, rotation=90 if upright else 0, fontsize=7
        )
        axes.grid(visible=False, axis="x")
        axes.locator_params(axis="y", integer=True)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
        return svg(figure)


def format_map(
    layers: list[str],
    columns: list[str],
    names: list[list[str]],
    bits: np.ndarray,
    title: str,
) -> str:
    """The smallest sufficient format of each operand, coloured by its bits.

    Args:
        layers: rows.
        columns: products and operands.
        names: formats, ``layers x columns``; empty where there is no product.
        bits: of the formats, NaN where no format is there.
        title: of the figure.
    """
    longest = max(map(len, layers))
    with drawing(
        2.2 + 1.05 * len(columns) + 0.07 * longest, 1.3 + 0.26 * len(layers)
    ) as (figure):
        axes = figure.subplots()
        # Light for few bits: what is cheap recedes.
        image = axes.imshow(
            np.ma.masked_invalid(np.log2(bits)),
            cmap="YlGnBu",
            vmin=1.5,
            vmax=5,
            aspect="auto",
        )
        for i, row in enumerate(names):
            for j, name in enumerate(row):
                dark = np.isfinite(bits[i, j]) and bits[i, j] > 12
                colour = "white" if dark else INK
                axes.text(
                    j, i, name, ha="center", va="center", fontsize=7, color=colour
                )
        axes.grid(visible=False)
        axes.set_xticks(range(len(columns)), columns, fontsize=7)
        axes.set_yticks(range(len(layers)), layers, fontsize=7)
        axes.set(title=title)
        scale = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
        ticks = [4, 6, 8, 16, 32]
        scale.ax.set_yticks(np.log2(ticks), [f"{n} bits" for n in ticks], fontsize=7)
        return svg(figure)
