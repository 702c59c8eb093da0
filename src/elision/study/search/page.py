"""The page of a search, and the tables and figures of its run folder."""

from pathlib import Path
from typing import Any

from elision.report.search_figure import search_front
from elision.report.table import rows_as_html
from elision.study.page.sections.base import Section
from elision.study.page.subject import SubjectPage
from elision.study.search.energy_section import energy_section
from elision.study.search.searched import Searched
from elision.study.sensitivity import write_folder

__all__ = ["SearchPage", "write_search"]


class SearchPage(SubjectPage):
    """The page of a search; see :class:`~elision.study.page.subject.SubjectPage`.

    Example:
        >>> "<h1>" in SearchPage("a network", "A network.").html()
        True
    """

    template = "search.html.j2"


def write_search(folder: Path, found: Searched) -> None:
    """Write ``report.html``, ``summary.json``, ``tables/*.csv`` and ``figures/*.svg``.

    Args:
        folder: the search's run folder.
        found: what it came to.

    Raises:
        OSError: the folder cannot be written.
    """
    workload, costs = found.config.workload, found.costs
    metric = workload.task.metric.name.removeprefix("test_").replace("_", " ")
    page = SearchPage(
        workload.name,
        f"{workload.model} on {workload.dataset}. One choice for each layer, so that the "
        "summed loss that sensitivities predict is least and the summed cost is within the "
        "budget; then one real training.",
    )
    figure = search_front(
        found.front,
        (found.predicted, _loss_of(found)),
        [(row["recipe"], row["MACs done"], row["score"]) for row in found.trials],
        cost=costs.name,
        unit=costs.unit,
        budget=found.budget,
        metric=f"held-out {metric}",
    )
    tables = {
        "result": _result(found, metric),
        "recipe": found.rows(),
        "trials": [dict(row) for row in found.trials],
        "work": _work(found),
        "correlations": [
            {"sensitivity": name, "rank correlation with the measured loss": value}
            for name, value in found.correlations.items()
        ],
    }
    page.figures["front"] = figure
    page.sections += [
        Section(
            "What was found",
            costs.kind,
            "The budget, the sum that the knapsack saw, and the chosen recipe costed as a "
            "whole. Scores are of training examples that were held out; the test examples "
            "were not read.",
            (rows_as_html(tables["result"]),),
        ),
        Section(
            "Cost and loss",
            "predicted, and measured here",
            "Left: the least summed loss at each budget; the dotted line is the budget. "
            "Right: every training of the search.",
            (figure, rows_as_html(tables["trials"], ("key",))),
        ),
        Section(
            "The recipe, layer by layer",
            costs.kind,
            f"Losses are those of the sensitivity <b>{found.by}</b>, one layer changed at a "
            "time on a trained dense network.",
            (rows_as_html(tables["recipe"], ("choice",)),),
        ),
        Section(
            "Sensitivities against the measured loss",
            "measured here",
            "Spearman's rank correlation over all choices of all layers with the rise of the "
            "held-out loss, one layer changed at a time.",
            (rows_as_html(tables["correlations"]),),
        ),
        Section(
            "Work of the search",
            "counted here",
            "In whole trainings: epochs of the trainings, and passes of the measurements over "
            "examples.",
            (rows_as_html(tables["work"]),),
        ),
    ]
    if (energy := energy_section(folder)) is not None:
        page.sections.append(energy)
    write_folder(folder, page, tables, found.summary())


def _loss_of(found: Searched) -> float:
    rows = zip(found.losses[found.by], found.chosen, strict=True)
    return sum(row[index] for row, index in rows)


def _result(found: Searched, metric: str) -> list[dict[str, Any]]:
    unit = found.costs.unit
    scores = found.config.workload.task.metric
    return [
        {
            "": "dense",
            f"cost, {unit}": found.costs.dense,
            f"held-out {metric}": scores.text(found.reference.score),
        },
        {"": "budget", f"cost, {unit}": found.budget},
        {"": "searched, predicted", f"cost, {unit}": found.predicted},
        {
            "": "searched, as a whole",
            f"cost, {unit}": found.measured,
            f"held-out {metric}": scores.text(found.verified.score),
        },
    ]


def _work(found: Searched) -> list[dict[str, Any]]:
    spent = found.spent
    return [
        {
            "": "trainings",
            "full trainings": spent.full_trainings,
            "processor seconds": spent.processor_seconds,
        },
        {"": "sensitivities and costs", "full trainings": found.measuring},
        {"": "all", "full trainings": found.full_trainings},
    ]
