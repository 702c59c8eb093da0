"""elision search."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from elision.cli.flags import Integer, Names
from elision.cli.progress import Bar

__all__ = ["search"]

#: Its words stand here, since "examples" in a docstring heads a section.
_Examples = Annotated[
    Integer,
    Parameter(help="Held-out training examples that judge the sensitivities."),
]


def search(
    *,
    workload: str | None = None,
    choices: Names = (
        "*=dense;swat:sparsity=0.8;swat:sparsity=0.9;swat:sparsity=0.95",
    ),
    cost: str = "macs",
    budget: float | None = None,
    limit: float | None = None,
    sensitivity: Names = ("loss",),
    examples: _Examples = 128,
    neighbours: Integer = 0,
    full_trainings: float = 5.0,
    engine: str = "auto",
    workers: Integer = 1,
    epochs: Integer | None = None,
    seed: Integer = 0,
    out: Path | None = None,
) -> None:
    """Find a recipe under a budget: a choice for each layer.

    Trains the dense network, measures what each choice does to each layer on held-out
    training examples, solves for the least loss within the budget exactly, and trains the
    answer. The folder's recipe.toml is what train, study and elide take; an interrupted
    search goes on in its folder.

    Parameters
    ----------
    workload
        What to train; default: photo-resnet8.
    choices
        PATTERN=CHOICE;CHOICE;...: layers, and what may be done to each: recipes and
        arithmetics (swat:sparsity=0.9, rigl:sparsity=0.9, fp8, 4, 8a-4w).
    cost
        macs, weight-bits, weight-bytes, seconds, cycles:MACHINE or energy:MACHINE.
    budget
        Share of the dense network's cost; default: 0.3, unless there is a limit.
    limit
        The budget in the cost's own unit.
    sensitivity
        weights, first, fisher, hessian, output, loss or gradient; the answers of several
        are raced.
    neighbours
        Assignments near the answer that are raced with it.
    full_trainings
        The most that the search may spend, in whole trainings.
    engine
        Who computes the products of steps that are timed.
    workers
        Processes that the trainings of a race are spread over.
    epochs
        Of a whole training; default: the workload's.
    seed
        Of every training.
    out
        Run folder; default: runs/search-WORKLOAD.
    """
    read = dict(map(_choices, choices))
    from elision.study.search import SearchConfig, searched
    from elision.study.search.page import write_search
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    chosen = find_workload(workload or DEFAULT_WORKLOAD).changed(epochs=epochs)
    config = SearchConfig(
        workload=chosen,
        choices=read,
        cost=cost,
        budget=0.3 if budget is None and limit is None else budget,
        limit=limit,
        sensitivities=sensitivity,
        examples=examples,
        neighbours=neighbours,
        full_trainings=full_trainings,
        engine=engine,
        seed=seed,
    )
    folder = out or Path("runs") / f"search-{chosen.name}"
    with Bar() as bar:

        def show(what: str, done: int, of: int) -> None:
            bar.step(what, done, of, None)

        found: Any = searched(config, folder, workers=workers, progress=show)
    write_search(folder, found)
    from elision.report.table import rows_as_text

    print(rows_as_text(found.rows()))
    print(f"\n{found}\n\nrecipe: {folder / 'recipe.toml'}")
    print(f"report: {folder / 'report.html'}")


def _choices(text: str) -> tuple[str, tuple[str, ...]]:
    """A pattern and its choices; a pattern has no equals sign."""
    pattern, equals, specs = text.partition("=")
    found = tuple(spec.strip() for spec in specs.split(";") if spec.strip())
    if not equals or not pattern.strip() or not found:
        raise ValueError(f"--choices {text!r}: write PATTERN=CHOICE;CHOICE;...")
    return pattern.strip(), found
