"""Run folder of a search by training: claimed, continued, and written whole."""

from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elision.common.files import to_csv, write_json, write_text
from elision.common.workers import pool
from elision.layers.recipe import Recipe
from elision.methods import make_recipe
from elision.study.energy import account_of_search
from elision.study.folder import claimed
from elision.study.search.by_layer import LayerTemplate
from elision.study.search.by_training import Done, Found, by_training
from elision.study.search.space import Space
from elision.study.search.template import Template
from elision.study.search.trial import Trial
from elision.study.search.trials import Spent, Trials
from elision.study.sources import digests

__all__ = ["TrainedSearch", "chosen_recipe"]


@dataclass(frozen=True, kw_only=True)
class TrainedSearch:
    """A search by training in a run folder of its own.

    Attributes:
        template: of the candidates.
        space: of what differs among them.
        method, count, full_trainings, limit, epochs, eta, seed, slots: as for
            :func:`~elision.study.search.by_training.by_training`; the limit is of the share
            of multiply-accumulates that is done.

    Raises:
        ValueError: the space does not fit the template.

    Example:
        >>> import tempfile
        >>> from elision.study.search.space import Choice
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=3,
        ...                  batch_size=16, train_images=320,
        ...                  model_options={"width": 16})
        >>> search = TrainedSearch(
        ...     template=Template(workload=small),
        ...     space=Space((Choice("recipe", ("dense", "swat:sparsity=0.99,dense=()")),)),
        ...     count=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found, spent = search.run(Path(folder) / "run")
        >>> found.best.trial.recipe, spent.full_trainings == found.full_trainings
        ('dense', True)
    """

    template: Template | LayerTemplate
    space: Space
    method: str = "halving"
    count: int | None = None
    full_trainings: float | None = None
    limit: float | None = None
    epochs: int | None = None
    eta: int | None = None
    seed: int = 0
    slots: int = 4

    def __post_init__(self) -> None:
        self.template.check(self.space)

    def settings(self) -> dict[str, Any]:
        """Arguments of the search, without those that are None."""
        names = [
            "method",
            "count",
            "full_trainings",
            "limit",
            "epochs",
            "eta",
            "seed",
            "slots",
        ]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the run folder's configuration has them."""
        return {
            "search": self.settings(),
            "template": self.template.to_dict(),
            "space": self.space.to_dict(),
        }

    def run(
        self,
        folder: Path,
        *,
        workers: int = 1,
        executor: Executor | None = None,
        done: Done | None = None,
    ) -> tuple[Found, Spent]:
        """Search, or do what is left of it, and write ``summary.json``.

        Beside it: ``tables/trials.csv``, the best candidate's ``recipe.toml``, and
        ``spent.json`` and ``energy.json``, which have the seconds and the energy of the
        trials and so differ from run to run.

        Args:
            folder: the run folder; one that holds part of the same search is continued.
            workers: processes that train.
            executor: trains elsewhere, on a cluster's machines for example; the folder must
                lie on a file system that they share.
            done: called with each row.

        Raises:
            ValueError: the folder is another run's, or as ``by_training``.
            OSError: the folder cannot be written.
        """
        workload = self.template.workload
        sources = digests(workload, workload.load_dataset(), own=False)
        with (
            claimed(folder, self.to_dict(), sources),
            pool(workers, executor) as trained,
        ):
            trials = Trials(folder / "trials")
            found = by_training(
                self.space, self.template, trials, trained, done=done, **self.settings()
            )
            spent = trials.spent()
            _write(folder, found, spent)
            account_of_search(folder)
            trials.settle()
        return found, spent


def _write(folder: Path, found: Found, spent: Spent) -> None:
    (folder / "tables").mkdir(exist_ok=True)
    rows = [row.plain() for row in found.rows]
    write_text(folder / "tables" / "trials.csv", to_csv(rows))
    if found.best is not None:
        trial = found.best.trial
        write_text(folder / "recipe.toml", chosen_recipe(trial).to_toml())
    write_json(folder / "spent.json", asdict(spent))
    lasting = {k: v for k, v in asdict(spent.lasting()).items() if v is not None}
    write_json(folder / "summary.json", found.summary() | {"spent": lasting})


def chosen_recipe(trial: Trial) -> Recipe:
    """The recipe of a trial, its schedule fitted to the training on all examples.

    Example:
        >>> from elision.workloads import find_workload
        >>> trial = Trial(workload=find_workload("digits-cnn"), recipe="swat:sparsity=0.5")
        >>> chosen_recipe(trial).name
        'swat'
    """
    if not isinstance(trial.recipe, str):
        return trial.recipe
    workload = trial.workload
    steps = workload.epochs * workload.steps_per_epoch(workload.load_dataset())
    return make_recipe(trial.recipe, steps=steps)
