"""Figure of a search: cost against held-out loss, predicted front and real trainings."""

from collections.abc import Sequence

from elision.report.style import PALETTE, drawing, svg

__all__ = ["search_front"]


def search_front(
    front: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    trials: Sequence[tuple[str, float, float]],
    *,
    unit: str,
    budget: float,
    metric: str,
) -> str:
    """Predicted losses over the cost beside the scores of all real trainings.

    Args:
        front: predicted, (cost, summed loss) of the best choices under a sweep of budgets.
        chosen: the same of the recipe that was chosen.
        trials: recipe, share of multiply-accumulates done, and held-out score.
        unit: of the cost.
        budget: in this unit.
        metric: of the scores.

    Example:
        >>> figure = search_front([(1.0, 2.0), (2.0, 1.0)], (2.0, 1.0),
        ...                       [("dense", 1.0, 0.9)], unit="MAC", budget=2.0,
        ...                       metric="accuracy")
        >>> figure.startswith("<svg")
        True
    """
    with drawing(9.2, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        costs, losses = zip(*front, strict=True)
        left.plot(costs, losses, color=PALETTE[1], marker="o", ms=4, label="front")
        left.axvline(budget, color=PALETTE[0], linestyle=":", linewidth=1)
        left.plot(*chosen, color=PALETTE[2], marker="D", ms=8, lw=0, label="chosen")
        left.set(title="Predicted", xlabel=unit, ylabel="summed loss")
        left.legend(fontsize=8)
        for name, share, score in trials:
            colour = {"dense": PALETTE[0], "searched": PALETTE[2]}.get(name, PALETTE[1])
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
