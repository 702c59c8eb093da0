"""elision search."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from elision.cli.flags import Integer, Names
from elision.cli.progress import Bar
from elision.cli.running import cluster

__all__ = ["search"]

#: Its words stand here, since "examples" in a docstring heads a section.
_Examples = Annotated[
    Integer,
    Parameter(help="Held-out training examples that judge the sensitivities."),
]


def search(
    *,
    workload: str | None = None,
    method: str = "knapsack",
    choices: Names = (
        "*=dense;swat:sparsity=0.8;swat:sparsity=0.9;swat:sparsity=0.95",
    ),
    cost: str | None = None,
    budget: float | None = None,
    limit: float | None = None,
    sensitivity: Names | None = None,
    examples: _Examples | None = None,
    neighbours: Integer | None = None,
    full_trainings: float = 5.0,
    engine: str | None = None,
    count: Integer | None = None,
    eta: Integer | None = None,
    slots: Integer | None = None,
    workers: Integer | None = None,
    ray: str | None = None,
    epochs: Integer | None = None,
    seed: Integer = 0,
    out: Path | None = None,
) -> None:
    """Find a recipe under a budget: a choice for each layer.

    By a knapsack: trains the dense network, measures what each choice does to each layer on
    held-out training examples, solves for the least loss within the budget exactly, and
    trains the answer. By another method: trains candidates, and takes the best. The folder's
    recipe.toml is what train, study and elide take; an interrupted search goes on in its
    folder. A flag that the method has no use for is refused.

    Parameters
    ----------
    workload
        What to train; default: photo-resnet8.
    method
        knapsack, or by training: halving, hyperband, asha, random, tpe or nsga2.
    choices
        PATTERN=CHOICE;CHOICE;...: layers, and what may be done to each: recipes and
        arithmetics (swat:sparsity=0.9, rigl:sparsity=0.9, fp8, 4, 8a-4w).
    cost
        Of the knapsack: macs (the default), weight-bits, weight-bytes, seconds,
        cycles:MACHINE or energy:MACHINE. The others count the multiply-accumulates.
    budget
        Share of the dense network's cost; default: 0.3, unless there is a limit.
    limit
        Of the knapsack: the budget in the cost's own unit.
    sensitivity
        Of the knapsack: weights, first, fisher, hessian, output, loss (the default) or
        gradient; the answers of several are raced.
    neighbours
        Of the knapsack: assignments near the answer that are raced with it; default: 0.
    full_trainings
        The most that the search may spend, in whole trainings.
    engine
        Of the knapsack: who computes the products of steps that are timed; default: auto.
    count
        By training, but for hyperband: candidates; default: as many as full trainings allow.
    eta
        Of halving, hyperband and asha: one in so many is trained further; default: 3.
    slots
        Of asha, random, tpe and nsga2: trials under way at a time, part of the answer;
        default: 4.
    workers
        Processes that the trainings are spread over; default: one, or a cluster's all.
    ray
        By training: address of a Ray cluster that trains (needs the ray extra); "local"
        starts one here.
    epochs
        Of a whole training; default: the workload's.
    seed
        Of every training, and of the candidates.
    out
        Run folder; default: runs/search-WORKLOAD, with -METHOD behind it by training.
    """
    read = dict(map(_choices, choices))
    from elision.common.checks import integer, number
    from elision.common.names import lookup
    from elision.study.search.by_training import methods
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    lookup("search method", method, dict.fromkeys(("knapsack", *methods())))
    given = {
        "cost": cost,
        "limit": limit,
        "sensitivity": sensitivity,
        "examples": examples,
        "neighbours": neighbours,
        "engine": engine,
        "count": count,
        "eta": eta,
        "slots": slots,
        "ray": ray,
    }
    _refuse(method, given)
    # Refused before a folder is claimed for it.
    for name, whole, allowed in (
        ("workers", workers, ">= 1"),
        ("count", count, ">= 1"),
        ("slots", slots, ">= 1"),
        ("eta", eta, ">= 2"),
    ):
        if whole is not None:
            integer("search", name, whole, allowed)
    number("search", "full_trainings", full_trainings, "> 0")
    chosen = find_workload(workload or DEFAULT_WORKLOAD).changed(epochs=epochs)
    budget = 0.3 if budget is None and limit is None else budget
    known = {name: value for name, value in given.items() if value is not None}
    if method != "knapsack":
        known.pop("ray", None)
        known |= {"method": method, "limit": budget, "full_trainings": full_trainings}
        folder = out or Path("runs") / f"search-{chosen.name}-{method}"
        _by_training(chosen, read, folder, seed, workers, ray, known)
        return
    if "sensitivity" in known:
        known["sensitivities"] = known.pop("sensitivity")
    known |= {"budget": budget, "full_trainings": full_trainings, "seed": seed}
    _by_knapsack(
        chosen, read, out or Path("runs") / f"search-{chosen.name}", workers, known
    )


def _by_knapsack(
    workload: Any,
    choices: dict[str, tuple[str, ...]],
    folder: Path,
    workers: int | None,
    settings: dict[str, Any],
) -> None:
    """Search by sensitivities and a knapsack, and print what was found."""
    from elision.report.table import rows_as_text
    from elision.study.search import SearchConfig, searched
    from elision.study.search.page import write_search

    config = SearchConfig(workload=workload, choices=choices, **settings)
    with Bar() as bar:

        def show(what: str, done: int, of: int) -> None:
            bar.step(what, done, of, None)

        found: Any = searched(config, folder, workers=workers or 1, progress=show)
    write_search(folder, found)
    print(rows_as_text(found.rows()))
    print(f"\n{found}")
    _print_end(folder)


def _by_training(
    workload: Any,
    choices: dict[str, tuple[str, ...]],
    folder: Path,
    seed: int,
    workers: int | None,
    ray: str | None,
    settings: dict[str, Any],
) -> None:
    """Search by training candidates, and print what was found."""
    from elision.common.checks import number
    from elision.report.table import rows_as_text
    from elision.study.search.by_layer import LayerTemplate
    from elision.study.search.run import TrainedSearch
    from elision.study.search.trained_page import choice_rows, write_trained

    number("search", "budget", settings["limit"], "> 0")
    template = LayerTemplate(workload=workload, choices=choices, seed=seed)
    search = TrainedSearch(
        template=template, space=template.space, seed=seed, **settings
    )
    metric = workload.task.metric
    with cluster(ray) as executor, Bar() as bar:

        def show(row: Any) -> None:
            bar.step(f"trial {row.number}", row.epochs, workload.epochs)

        spread = workers or getattr(executor, "workers", 1)
        found, spent = search.run(folder, workers=spread, executor=executor, done=show)
    write_trained(folder, search, found, spent)
    best = found.best
    if best is None:
        raise RuntimeError(
            f"search: no trial of {len(found.rows)} came to a score within the budget; "
            f"{folder / 'summary.json'} has all of them"
        )
    print(rows_as_text(choice_rows(found)))
    name = metric.name.removeprefix("test_")
    print(
        f"\nheld-out {name}: {metric.text(best.score)} after {best.epochs} epochs; share of "
        f"MACs {best.cost:.3g}, at most {search.limit:g}\n"
        f"front: {len(found.front)} of {len(found.furthest)} trials of as many epochs\n"
        f"spent: {spent.full_trainings:.2f} full trainings of {spent.trials} trials"
    )
    _print_end(folder)


def _print_end(folder: Path) -> None:
    """The energy, and where the recipe and the report are."""
    from elision.study.search.energy_section import energy_lines

    if lines := energy_lines(folder):
        print(lines)
    print(f"\nrecipe: {folder / 'recipe.toml'}")
    print(f"report: {folder / 'report.html'}")


#: Flags that some methods take, and these.
_TAKEN = {
    **dict.fromkeys(
        ("cost", "limit", "sensitivity", "examples", "neighbours", "engine"),
        ("knapsack",),
    ),
    "count": ("halving", "asha", "random", "tpe", "nsga2"),
    "eta": ("halving", "hyperband", "asha"),
    "slots": ("asha", "random", "tpe", "nsga2"),
    "ray": ("halving", "hyperband", "asha", "random", "tpe", "nsga2"),
}


def _refuse(method: str, given: dict[str, Any]) -> None:
    """Raise ValueError for a flag that the method has no use for."""
    for name, value in given.items():
        if value is not None and method not in _TAKEN[name]:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} {value}: --method {method} does not take it; those that do: "
                f"{', '.join(_TAKEN[name])}"
            )


def _choices(text: str) -> tuple[str, tuple[str, ...]]:
    """A pattern and its choices; a pattern has no equals sign."""
    pattern, equals, specs = text.partition("=")
    found = tuple(spec.strip() for spec in specs.split(";") if spec.strip())
    if not equals or not pattern.strip() or not found:
        raise ValueError(f"--choices {text!r}: write PATTERN=CHOICE;CHOICE;...")
    return pattern.strip(), found
