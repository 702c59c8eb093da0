"""Figures of faults: outcome by bit, by layer, accuracy by error rate, recovery."""

from collections.abc import Mapping, Sequence

import numpy as np

from elision.report.style import INK, drawing, series_mark, svg

__all__ = ["bit_curves", "layer_bars", "rate_curves", "recovery_curves"]

#: Bit -> estimate, low and high end, in per cent.
Curve = Mapping[int, tuple[float, float, float]]


def bit_curves(curves: Mapping[str, Curve], title: str) -> str:
    """Share of wrong trials over the position of the bit, with intervals.

    Args:
        curves: network -> bit -> estimate and limits.
        title: of the figure.
    """
    with drawing(9.2, 3.2) as figure:
        axes = figure.subplots()
        for k, (name, curve) in enumerate(curves.items()):
            bits = np.array(sorted(curve))
            middle, low, high = np.array([curve[b] for b in bits]).T
            mark = series_mark(k)
            spread = np.vstack([middle - low, high - middle]).clip(min=0)
            shift = 0.08 * (k - (len(curves) - 1) / 2)
            axes.errorbar(
                bits + shift,
                middle,
                spread,
                color=mark.colour,
                label=name,
                marker=mark.marker,
                ms=3,
                lw=1.2,
                elinewidth=0.8,
            )
        axes.set(title=title, ylabel="wrong trials, %")
        axes.set_xlabel("bit of the stored word, 0 the least significant")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", fontsize=8)
        return svg(figure)


def layer_bars(layers: Mapping[str, Mapping[str, float]], title: str) -> str:
    """A map of networks and layers, coloured by the share of changed predictions.

    Args:
        layers: network -> layer -> per cent.
        title: of the figure.
    """
    columns = list(dict.fromkeys(layer for row in layers.values() for layer in row))
    values = np.array(
        [[row.get(c, np.nan) for c in columns] for row in layers.values()]
    )
    longest = max(map(len, columns))
    with drawing(9.2, 1.2 + 0.34 * len(layers) + 0.06 * longest) as figure:
        axes = figure.subplots()
        image = axes.imshow(
            np.ma.masked_invalid(values), cmap="YlOrRd", vmin=0, aspect="auto"
        )
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(layers)), list(layers))
        axes.grid(visible=False)
        axes.set_title(title)
        bar = figure.colorbar(image, ax=axes, pad=0.01)
        bar.ax.set_ylabel("%", rotation=0)
        return svg(figure)


def rate_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    published: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> str:
    """Accuracy over the probability of a fault a stored bit.

    Args:
        curves: network -> (rate, accuracy in per cent), measured here.
        title: of the figure.
        published: the same, of others; drawn dashed.
    """
    with drawing(9.2, 3.2) as figure:
        axes = figure.subplots()
        for k, (name, points) in enumerate(curves.items()):
            x, y = np.array(sorted(points)).T
            mark = series_mark(k)
            axes.plot(x, y, color=mark.colour, marker=mark.marker, ms=3, label=name)
        for name, points in (published or {}).items():
            x, y = np.array(sorted(points)).T
            axes.plot(x, y, color=INK, ls="--", marker="s", ms=3, label=name)
        axes.set(title=title, xscale="log", xlabel="faults a stored bit")
        axes.set(ylabel="accuracy, %", ylim=(0, 100))
        axes.legend(loc="lower left", fontsize=8)
        return svg(figure)


def recovery_curves(
    losses: Mapping[str, Sequence[float]], struck: tuple[int, int], title: str
) -> str:
    """Smoothed losses over the steps; the struck ones are shaded.

    Args:
        losses: run -> loss of each step; the first is the clean one.
        struck: first and last struck step.
        title: of the figure.
    """
    with drawing(9.2, 3.2) as figure:
        axes = figure.subplots()
        axes.axvspan(struck[0] - 0.5, struck[1] + 0.5, color="#f3d9d0", lw=0)
        for k, (name, values) in enumerate(losses.items()):
            shown = np.where(np.isfinite(values), values, np.nan)
            colour = series_mark(k - 1).colour if k else INK
            axes.plot(shown, color=colour, label=name, lw=1.2 if k else 2)
        axes.set(title=title, xlabel="step", ylabel="loss", yscale="log")
        axes.legend(loc="upper right", fontsize=8)
        return svg(figure)
