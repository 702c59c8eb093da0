"""Figures of searches: cost against loss or score, the front, and real trainings."""

from collections.abc import Sequence

from elision.common.units import counted_unit
from elision.report.style import INK, drawing, series_mark, svg

__all__ = ["search_front", "trained_front"]

_FRONT, _CHOSEN = (series_mark(index).colour for index in range(2))


def search_front(
    front: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    trials: Sequence[tuple[str, float, float]],
    *,
    cost: str,
    unit: str,
    budget: float,
    metric: str,
) -> str:
    """Predicted losses over the cost beside the scores of all real trainings.

    Args:
        front: predicted, (cost, summed loss) of the best choices under a sweep of budgets.
        chosen: the same of the recipe that was chosen.
        trials: recipe, share of multiply-accumulates done, and held-out score.
        cost: its name.
        unit: of the cost, as :func:`~elision.common.units.counted_unit` takes it.
        budget: in this unit.
        metric: of the scores.

    Example:
        >>> figure = search_front([(1.0, 2.0), (2.0, 1.0)], (2.0, 1.0),
        ...                       [("dense", 1.0, 0.9)], cost="macs", unit="MAC",
        ...                       budget=2.0, metric="accuracy")
        >>> figure.startswith("<svg")
        True
    """
    with drawing(9.2, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        costs, losses = zip(*front, strict=True)
        named, scale = counted_unit([*costs, budget], unit)
        left.plot(
            [value * scale for value in costs],
            losses,
            color=_FRONT,
            marker="o",
            ms=4,
            label="front",
        )
        left.axvline(
            budget * scale, color=INK, linestyle=":", linewidth=1, label="budget"
        )
        left.plot(
            chosen[0] * scale,
            chosen[1],
            color=_CHOSEN,
            marker="D",
            ms=8,
            lw=0,
            label="chosen",
        )
        left.set(title="Predicted", xlabel=f"{named} ({cost})", ylabel="summed loss")
        left.legend(fontsize=8)
        for name, share, score in trials:
            colour = _CHOSEN if name == "searched" else INK
            right.scatter([share], [score], color=colour, s=28)
            right.annotate(
                name,
                (share, score),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=7,
            )
        right.margins(x=0.2)
        right.set(
            title="Every training", xlabel="share of training MACs", ylabel=metric
        )
        return svg(figure)


def trained_front(
    trials: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
    best: tuple[float, float] | None,
    *,
    limit: float | None,
    metric: str,
) -> str:
    """Scores of all trials over their cost, with the front of those trained longest.

    Args:
        trials: (share of multiply-accumulates done, held-out score) of each trial.
        front: the same of the front, in any order.
        best: the same of the chosen one, or None.
        limit: most that the cost may be, or None.
        metric: of the scores.

    Example:
        >>> figure = trained_front([(1.0, 0.9), (0.5, 0.8)], [(0.5, 0.8)], (0.5, 0.8),
        ...                        limit=0.6, metric="accuracy")
        >>> figure.startswith("<svg")
        True
    """
    with drawing(6.4, 3.4) as figure:
        axes = figure.subplots()
        costs, scores = zip(*trials, strict=True) if trials else ((), ())
        axes.scatter(costs, scores, color="#999999", s=18, label="trial, any epochs")
        if front:
            costs, scores = zip(*sorted(front), strict=True)
            axes.plot(costs, scores, color=_FRONT, marker="o", ms=5, label="front")
        if best is not None:
            axes.plot(*best, color=_CHOSEN, marker="D", ms=8, lw=0, label="chosen")
        if limit is not None:
            axes.axvline(limit, color=INK, linestyle=":", linewidth=1, label="limit")
        axes.margins(x=0.1)
        axes.set(title="Trials", xlabel="share of training MACs", ylabel=metric)
        axes.legend(fontsize=8)
        return svg(figure)
