"""Several runs as one HTML file: a verdict, a figure a cost and a table a workload."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elision.common.names import lookup
from elision.report.style import marks_of
from elision.report.table import rows_as_html
from elision.report.tradeoff_figure import Tradeoffs
from elision.study.compared_table import DEVIATION, short_rows
from elision.study.comparison import Contest, environments
from elision.study.costed import CostKind, reference_machine
from elision.study.page.answer import Answer, answer, figure_of
from elision.study.page.overview import gains
from elision.study.page.template import render

__all__ = ["comparison_figures", "comparison_page"]


@dataclass(frozen=True)
class _Shown:
    """A workload of the page."""

    title: str
    answer: Answer
    notes: tuple[str, ...]
    note: str
    table: str


def comparison_page(found: Sequence[Contest], cost: str = "work") -> str:
    """The whole comparison as an HTML document.

    Args:
        found: the workloads.
        cost: key of the cost that is shown first, as in ``CostKind.key``.

    Raises:
        ValueError: no workload knows this cost (lists those that are known).
    """
    _check(found, cost)
    runs = environments(found)
    places = [""] if len(found) == 1 else [f"-{i + 1}" for i in range(len(found))]
    versions = {row["elision"] for row in runs if "elision" in row}
    return render(
        "comparison.html.j2",
        contests=[
            _shown(contest, place, cost)
            for contest, place in zip(found, places, strict=True)
        ],
        lead=_lead(found, len(runs)),
        environments=rows_as_html(runs, ("recipes", "seeds", "folder", "processor")),
        versions=f"Runs of several versions: {', '.join(sorted(versions))}."
        if len(versions) > 1
        else "",
    )


def comparison_figures(found: Sequence[Contest], cost: str = "work") -> list[Tradeoffs]:
    """The metric over a cost, a panel a workload that knows it.

    Args:
        found: the workloads.
        cost: key of the cost, as in ``CostKind.key``.

    Raises:
        ValueError: no workload knows this cost (lists those that are known), or none has
            a recipe with a score and the cost.
    """
    _check(found, cost)
    panels = [
        figure_of(contest.verdict, kind, tuple(contest.rows))
        for contest in found
        for kind in contest.kinds
        if kind.key == cost
    ]
    titles = [c.title for c in found if any(k.key == cost for k in c.kinds)]
    drawn = [
        _titled(panel, title if len(found) > 1 else "")
        for panel, title in zip(panels, titles, strict=True)
        if panel is not None
    ]
    if not drawn:
        raise ValueError(f"compare: no recipe has both a score and the cost {cost!r}")
    return drawn


def _titled(panel: Tradeoffs, workload: str) -> Tradeoffs:
    return replace(panel, title=f"{workload}: {panel.title}") if workload else panel


def _check(found: Sequence[Contest], cost: str) -> None:
    known = {
        kind.key: kind for contest in found for kind in contest.kinds if kind.ratios
    }
    lookup("cost of these runs", cost, known)


def _lead(found: Sequence[Contest], runs: int) -> str:
    recipes = sum(len(contest.rows) for contest in found)
    counted = [
        f"{n} {what}{'s' if n > 1 else ''}"
        for n, what in ((recipes, "recipe"), (runs, "run"), (len(found), "workload"))
    ]
    return f"{counted[0]} of {counted[1]} on {counted[2]}."


def _shown(contest: Contest, place: str, cost: str) -> _Shown:
    labels = tuple(contest.rows)
    kinds = sorted(contest.kinds, key=lambda kind: kind.key != cost)
    said = answer(contest.summary, contest.metric, labels, kinds, place)
    return _Shown(contest.title, said, contest.notes, _note(contest), _table(contest))


def _note(contest: Contest) -> str:
    """What the columns of the table mean."""
    said = [f"{DEVIATION} A factor above one is a gain."]
    machines = contest.summary["accelerators"]
    if any(kind.key.startswith("cycles:") for kind in contest.kinds):
        dense = reference_machine(machines, contest.baseline)
        where = "the same machine" if dense is None else "the dense array"
        said.append(
            f"Cycles and energy are simulated, and compared with {contest.baseline} on "
            f"{where}."
        )
    if contest.step is not None and len(_folders(contest)) > 1:
        said.append("Seconds of separate runs were not measured side by side.")
    return " ".join(said)


def _folders(contest: Contest) -> set[Path]:
    return {run.folder for row in contest.rows.values() for run in row.runs}


def _table(contest: Contest) -> str:
    rows = [
        shown
        | gains(shown["recipe"], _in_table(contest))
        | {"runs": contest.rows[shown["recipe"]].names}
        for shown in short_rows(contest)
    ]
    return rows_as_html(rows, ("runs",), marks_of(tuple(contest.rows)))


def _in_table(contest: Contest) -> list[CostKind]:
    """Kinds of cost that have a column, where any recipe differs from the reference.

    Work has a column of its own, energy is in the verdict.
    """
    shown = ("seconds", "cycles", "bytes")
    return [
        kind
        for kind in contest.kinds
        if kind.key.partition(":")[0] in shown and set(kind.ratios.values()) != {1.0}
    ]
