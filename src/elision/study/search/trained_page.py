"""The page of a search by training, and the tables and figure of its run folder."""

from pathlib import Path
from typing import Any

from elision.common.files import to_csv, write_text
from elision.report.search_figure import trained_front
from elision.report.table import rows_as_html
from elision.study.page.sections.base import Section
from elision.study.search.by_training import Found, Row
from elision.study.search.energy_section import energy_section
from elision.study.search.page import SearchPage
from elision.study.search.run import TrainedSearch
from elision.study.search.trials import Spent
from elision.workloads import Metric

__all__ = ["choice_rows", "write_trained"]


def write_trained(
    folder: Path, search: TrainedSearch, found: Found, spent: Spent
) -> None:
    """Write ``report.html``, ``tables/*.csv`` and ``figures/front.svg``.

    Args:
        folder: the search's run folder, whose ``summary.json`` is there.
        search: its settings.
        found: what it came to.
        spent: the work of its trials.

    Raises:
        OSError: the folder cannot be written.
    """
    workload = search.template.workload
    metric = workload.task.metric
    name = "held-out " + metric.name.removeprefix("test_").replace("_", " ")
    # Which layer has which choice stands in the recipe's table and in trials.csv.
    tables = {
        "front": [_short(row, found, metric, name) for row in found.front],
        "recipe": choice_rows(found),
        "work": _work(spent),
    }
    page = SearchPage(
        workload.name,
        f"{workload.model} on {workload.dataset}. Candidates of a space, trained by the "
        f"method {found.method}; the best of those that were trained longest is the recipe.",
    )
    page.figures["front"] = figure = trained_front(
        [(row.cost, row.score) for row in found.rows if row.epochs],
        [(row.cost, row.score) for row in found.front],
        None if found.best is None else (found.best.cost, found.best.score),
        limit=search.limit,
        metric=name,
    )
    trials = [_short(row, found, metric, name) for row in found.rows]
    page.sections += [
        Section(
            "Cost and score",
            "measured here",
            "The front: those trained longest, within the limit, that no other beats in "
            "both. Cost: share of a dense training's multiply-accumulates, counted in the "
            "training. Scores are of training examples that were held out, the best of many "
            "flatters itself, and the test examples were not read.",
            (figure, rows_as_html(tables["front"], ("key",))),
        ),
        Section(
            "The recipe that was chosen",
            "measured here",
            "A choice for each dimension of the space.",
            (rows_as_html(tables["recipe"], ("choice",)),),
        ),
        Section(
            "Every trial",
            "measured here",
            "In the order in which the method knew them; a candidate that was trained "
            "further has several rows. What each one chose: tables/trials.csv.",
            (rows_as_html(trials, ("key",)),),
        ),
        Section(
            "Work of the search",
            "counted here",
            "A trial trained to its end is one full training.",
            (rows_as_html(tables["work"]),),
        ),
    ]
    if (energy := energy_section(folder)) is not None:
        page.sections.append(energy)
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(exist_ok=True)
    for table, rows in tables.items():
        write_text(folder / "tables" / f"{table}.csv", to_csv(rows))
    write_text(folder / "figures" / "front.svg", figure)
    write_text(folder / "report.html", page.html())


def choice_rows(found: Found) -> list[dict[str, Any]]:
    """A row for each dimension of the best point: a layer and its choice, for example.

    Example:
        >>> choice_rows(Found("random", (), 0.0, 5))
        []
    """
    best = found.best
    if best is None:
        return []
    return [{"layer": name, "choice": str(value)} for name, value in best.point.items()]


def _short(row: Row, found: Found, metric: Metric, name: str) -> dict[str, Any]:
    """A trial without its point."""
    return {
        "trial": row.number,
        "epochs": f"{row.epochs} of {found.epochs}",
        "share of MACs": row.cost,
        "within the limit": "yes" if row.is_feasible else "no",
        name: metric.text(row.score) if row.epochs else "not trained",
        "key": row.trial.key,
    }


def _work(spent: Spent) -> list[dict[str, Any]]:
    return [
        {
            "": "all trials",
            "trials": spent.trials,
            "full trainings": spent.full_trainings,
            "epochs": spent.epochs,
            "steps": spent.steps,
            "processor seconds": spent.processor_seconds,
        }
    ]
