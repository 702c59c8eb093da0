"""search: sensitivities, an exact knapsack, races of what is near, one real run to verify.

The stages go one way, and each is usable alone::

    dense training ──> sensitivities ┐
                       costs ────────┼──> knapsack ──> (refinement) ──> verified recipe
                       budget ───────┘

Every stage writes its result into the run folder before the next one begins, so a search
that was killed goes on where it was and ends with the same recipe. Trainings are trials
(:mod:`.trial`): they read training examples and are judged by training examples held out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from elision.common.checks import count, number, random_seed
from elision.common.files import without_nan, write_json, write_text
from elision.common.knapsack import knapsack
from elision.common.names import lookup
from elision.common.workers import pool
from elision.layers import restore
from elision.layers.recipe import Recipe
from elision.precision.sensitivity import rank_correlation
from elision.study.energy import account_of_search
from elision.study.folder import claimed
from elision.study.search.choices import LayerSpace, layer_space
from elision.study.search.costs import Costs, cost_named
from elision.study.search.halving import Job
from elision.study.search.refine import refined
from elision.study.search.sensitivities import SENSITIVITIES, Sensitivities
from elision.study.search.subject import OutOfWork, Subject, subject_of
from elision.study.search.trial import Trial, TrialResult
from elision.study.search.trials import Spent, Trials
from elision.study.sources import digests
from elision.training import Execution
from elision.training.loop import RunPlan, train
from elision.workloads import Workload, find_workload

__all__ = ["SearchConfig", "Searched", "search", "searched"]

#: Factors between budgets of the predicted front (own choice).
_FRONT = tuple(0.05 * k for k in range(1, 21))

#: A measured cost is met within this share of its budget.
MET = 0.05

#: Corrections of a measured cost at most (own choice).
_CORRECTIONS = 6

#: Shares of a training's work that a forward pass over an example takes.
_PASSES_OF_A_STEP = 3

#: Called with what is at work, steps done and steps in all.
SearchProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search: a workload, choices, a cost and its budget.

    Attributes:
        workload: what is trained; its epochs are those of a full training.
        choices: patterns of layers, and the choices of each (:mod:`.choices`).
        cost: name of a cost (:mod:`.costs`).
        budget: share of the dense network's cost, or None.
        limit: the budget in the cost's own unit, or None; one of the two is given.
        sensitivities: names (:mod:`.sensitivities`); the answers of several are raced.
        examples: held-out training examples that judge sensitivities.
        held_out: share of the training examples that trains nothing and judges.
        neighbours: assignments near the answer that are raced with it; 0: none.
        full_trainings: the most that the search may spend, in whole trainings.
        engine: who computes the products of steps that are timed.
        seed: of every training.

    Raises:
        ValueError: an unknown name, a number out of range, or not one budget.

    Example:
        >>> SearchConfig(workload=find_workload("digits-cnn"), choices={"*": ("dense",)})
        Traceback (most recent call last):
        ValueError: search: give a budget (share of the dense cost) or a limit, one of them
    """

    workload: Workload
    choices: Mapping[str, tuple[str, ...]]
    cost: str = "macs"
    budget: float | None = None
    limit: float | None = None
    sensitivities: tuple[str, ...] = ("loss",)
    examples: int = 128
    held_out: float = 0.2
    neighbours: int = 0
    full_trainings: float = 5.0
    engine: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.limit is None):
            raise ValueError(
                "search: give a budget (share of the dense cost) or a limit, one of them"
            )
        if self.budget is not None:
            number("search", "budget", self.budget, "> 0")
        if self.limit is not None:
            number("search", "limit", self.limit, "> 0")
        cost_named(self.cost)
        if not self.sensitivities:
            raise ValueError(
                f"search: name a sensitivity; known: {', '.join(SENSITIVITIES)}"
            )
        for name in self.sensitivities:
            lookup("sensitivity", name, SENSITIVITIES)
        count("search", "examples", self.examples)
        count("search", "neighbours", self.neighbours, 0)
        random_seed("search", "seed", self.seed)
        number("search", "held_out", self.held_out, "(0, 1)")
        # The dense training and the verified one are two of them.
        number("search", "full_trainings", self.full_trainings, "> 2")
        Execution(engine=self.engine)
        made = {pattern: tuple(specs) for pattern, specs in self.choices.items()}
        object.__setattr__(self, "choices", made)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without what is None."""
        values = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if getattr(self, name) is not None
        }
        values["workload"] = self.workload.to_dict()
        values["sensitivities"] = list(self.sensitivities)
        values["choices"] = [
            {"layers": pattern, "specs": list(specs)}
            for pattern, specs in self.choices.items()
        ]
        return values

    def trial(self, recipe: Recipe | str) -> Trial:
        """A whole training under a recipe, judged on held-out training examples."""
        return Trial(
            workload=self.workload,
            recipe=recipe,
            seed=self.seed,
            held_out=self.held_out,
        )


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        config: of the search.
        space: of the choices.
        costs: of the choices.
        budget: in the unit of the cost.
        losses: predicted, by sensitivity, of each choice of each place.
        chosen: index of a choice for each place.
        by: the sensitivity whose knapsack began it.
        measured: the chosen recipe's cost as a whole.
        reference: the dense training.
        verified: the training of the chosen recipe.
        front: predicted, ``(cost, summed loss)`` of each budget of a sweep.
        trials: every training: recipe, epochs, share of MACs, held-out score, cost.
        correlations: rank correlation of each sensitivity with the measured rise of the
            loss, over all choices of all places.
        spent: work of the trainings.
        measuring: work of sensitivities and costs, in full trainings.
        data: where the examples come from.

    Example:
        >>> Searched.__dataclass_fields__["measuring"].type
        <class 'float'>
    """

    config: SearchConfig
    space: LayerSpace
    costs: Costs
    budget: float
    losses: Mapping[str, Sensitivities]
    chosen: tuple[int, ...]
    by: str
    measured: float
    reference: TrialResult
    verified: TrialResult
    front: Sequence[tuple[float, float]]
    trials: Sequence[Mapping[str, Any]]
    correlations: Mapping[str, float]
    spent: Spent
    measuring: float
    data: str = field(default="")

    @property
    def recipe(self) -> Recipe:
        """The recipe that was found, which ``elide``, ``train`` and ``study`` take."""
        return self.space.recipe(self.chosen)

    @property
    def predicted(self) -> float:
        """The chosen recipe's cost as the sum over places."""
        return self.costs.predicted(self.chosen)

    @property
    def full_trainings(self) -> float:
        """Work of the whole search in full trainings of the dense network."""
        return self.spent.full_trainings + self.measuring

    def rows(self) -> list[dict[str, Any]]:
        """A row for each place: choice, cost and its share of dense, predicted loss."""
        parts = zip(
            self.space.places,
            self.chosen,
            self.costs.values,
            self.losses[self.by],
            strict=True,
        )
        return [
            {
                "layer": place.name,
                "choice": place.options[index].spec,
                f"cost, {self.costs.unit}": cost[index],
                "of its dearest choice": cost[index] / (max(cost) or 1.0),
                "predicted loss": lost[index],
            }
            for place, index, cost, lost in parts
        ]

    def summary(self) -> dict[str, Any]:
        """Plain values, for ``summary.json``."""
        return {
            "layout": 1,
            "search": self.config.to_dict(),
            "chosen": self.space.rows(self.chosen),
            "by": self.by,
            "cost": {
                "name": self.costs.name,
                "unit": self.costs.unit,
                "kind": self.costs.kind,
                "dense": self.costs.dense,
                "budget": self.budget,
                "predicted": self.predicted,
                "whole": self.measured,
            },
            "reference": self.reference.to_dict(),
            "verified": self.verified.to_dict(),
            "front": [list(point) for point in self.front],
            "trials": [dict(row) for row in self.trials],
            "correlations": dict(self.correlations),
            "full_trainings": {
                "trainings": self.spent.full_trainings,
                "measurements": self.measuring,
                "all": self.full_trainings,
            },
        }

    def __str__(self) -> str:
        metric = self.config.workload.task.metric
        unit = self.costs.unit
        over = self.measured / self.budget - 1
        allowed = MET if self.costs.kind == "measured here" else 1e-9
        return "\n".join(
            [
                *([f"over its budget by {over:.1%}"] if over > allowed else []),
                f"cost ({self.costs.kind}): budget {self.budget:.6g}, predicted "
                f"{self.predicted:.6g}, as a whole {self.measured:.6g} {unit}; dense "
                f"{self.costs.dense:.6g}",
                f"held-out {metric.name.removeprefix('test_')}: "
                f"{metric.text(self.verified.score)}; dense "
                f"{metric.text(self.reference.score)}",
                f"spent: {self.full_trainings:.2f} full trainings ({self.measuring:.2f} of "
                "them for sensitivities and costs)",
            ]
        )


def search(
    workload: str | Workload,
    *,
    budget: float | None = None,
    folder: Path | None = None,
    **settings: Any,
) -> Recipe:
    """The recipe of least predicted loss whose cost is in the budget.

    Args:
        workload: or the name of one.
        budget: share of the dense network's cost; or give ``limit``.
        folder: run folder, in which a search that was interrupted goes on; None: a
            temporary one.
        **settings: those of :class:`SearchConfig`; ``choices`` is needed.

    Raises:
        ValueError: as :class:`SearchConfig` and :func:`searched`.
        TypeError: an unknown setting.

    Example:
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=1,
        ...                  train_images=320, model_options={"width": 16})
        >>> recipe = search(small, budget=0.6, examples=32, sensitivities=("output",),
        ...                 choices={"*": ("dense", "swat:sparsity=0.5,dense=()")})
        >>> recipe.name
        'searched'
    """
    import tempfile

    chosen = find_workload(workload) if isinstance(workload, str) else workload
    config = SearchConfig(workload=chosen, budget=budget, **settings)
    if folder is not None:
        return searched(config, folder).recipe
    with tempfile.TemporaryDirectory() as temporary:
        return searched(config, Path(temporary) / "search").recipe


def searched(
    config: SearchConfig,
    folder: Path,
    *,
    workers: int = 1,
    progress: SearchProgress | None = None,
) -> Searched:
    """Search, or do what is left of a search, and write its run folder but for the page.

    Args:
        config: of the search.
        folder: its run folder; ``recipe.toml`` in it is the answer.
        workers: processes that the trainings of a race are spread over; the answer is that
            of one.
        progress: called after every step of the dense and the last training.

    Raises:
        ValueError: choices that do not fit the network, a budget that nothing meets (says
            the least possible), a folder of another search, or data that cannot be divided.
        OSError: the folder cannot be written.
    """
    whole = config.workload.load_dataset()
    data = whole.held_out(config.held_out)
    steps = config.workload.epochs * config.workload.steps_per_epoch(whole)
    # Wrong choices are refused before anything is trained for them.
    layer_space(config.workload.make_model(data), config.choices, steps=steps)
    with claimed(folder, config.to_dict(), digests(config.workload, whole, own=False)):
        return _Search(config, folder, data, workers, progress).run(steps)


class _Search:
    """One search in its folder."""

    def __init__(
        self,
        config: SearchConfig,
        folder: Path,
        data: Any,
        workers: int,
        progress: SearchProgress | None,
    ) -> None:
        self.config, self.folder, self.data = config, folder, data
        self.workers, self.progress = workers, progress
        self.trials = Trials(folder / "trials")

    def run(self, steps: int) -> Searched:
        """All stages; what the folder has of them is read."""
        config = self.config
        dense = config.trial("dense")
        reference, model = self._trained("train dense", dense)
        subject = subject_of(config.workload, model, self.data, config.examples)
        subject.engine = config.engine
        space = layer_space(model, config.choices, steps=steps)
        losses = {name: self._losses(name, subject, space) for name in self._needed()}
        costs = self._costs(subject, space)
        budget = self._budget(costs)
        answers = self._answers(subject, space, costs, budget, losses)
        by, chosen = self._refined(subject, space, costs, budget, losses, answers)
        recipe = space.recipe(chosen)
        write_text(self.folder / "recipe.toml", recipe.to_toml())
        verified, _ = self._trained("train searched", config.trial(recipe))
        found = Searched(
            config,
            space,
            costs,
            budget,
            losses,
            chosen,
            by,
            self._whole(subject, costs, space, chosen),
            reference,
            verified,
            _front(costs, losses[by]),
            self._rows(),
            _correlations(losses),
            self.trials.spent(),
            self._measuring(),
            self.data.source,
        )
        account_of_search(self.folder)  # of its trainings; sensitivities are not in it
        write_json(self.folder / "summary.json", without_nan(found.summary()))
        return found

    def _needed(self) -> list[str]:
        """The sensitivities asked for, and the measured loss, which ranks them."""
        return list(dict.fromkeys((*self.config.sensitivities, "loss")))

    def _trained(self, name: str, trial: Trial) -> tuple[TrialResult, nn.Module]:
        """The result of a whole training and its network, not elided."""
        config = self.config
        self._tell(name)
        result = self.trials.result(trial, trial.epochs)
        plan = RunPlan(seed=trial.seed, meter_every=8, pause_after=trial.epochs)
        model = train(
            config.workload,
            trial.fitted(self.data),
            self.data,
            plan,
            folder=self.trials.place(trial),
        ).model
        return result, restore(model)

    def _kept(self, name: str, make: Callable[[], Any], subject: Subject) -> Any:
        """A stage's plain values: from its file, or made now with the work they took."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            self._tell(name)
            before, left = subject.examples_read, self._left()
            subject.most = before + left
            try:
                values = make()
            except OutOfWork as error:
                config = self.config
                raise ValueError(
                    f"search: {name} would pass full_trainings={config.full_trainings:g}: "
                    f"besides the trainings and what was measured, {max(0, left):.0f} passes "
                    f"over an example are left (three a step); give fewer examples "
                    f"({config.examples} now), fewer choices, or more full_trainings"
                ) from error
            read = subject.examples_read - before
            write_json(path, {"values": values, "examples": read})
        return json.loads(path.read_text(encoding="utf-8"))["values"]

    def _tell(self, what: str, done: int = 0, of: int = 1) -> None:
        if self.progress is not None:
            self.progress(what, done, of)

    def _losses(self, name: str, subject: Subject, space: LayerSpace) -> Sensitivities:
        return self._kept(
            f"sensitivity-{name}", lambda: SENSITIVITIES[name](subject, space), subject
        )

    def _costs(self, subject: Subject, space: LayerSpace) -> Costs:
        cost = cost_named(self.config.cost)
        return Costs(
            **self._kept("costs", lambda: cost.of(subject, space).to_dict(), subject)
        )

    def _budget(self, costs: Costs) -> float:
        config = self.config
        if config.limit is not None:
            return config.limit
        assert config.budget is not None
        return config.budget * costs.dense

    def _answers(
        self,
        subject: Subject,
        space: LayerSpace,
        costs: Costs,
        budget: float,
        losses: Mapping[str, Sensitivities],
    ) -> dict[str, tuple[int, ...]]:
        """The knapsack's answer for each sensitivity asked for."""
        return {
            name: self._answer(subject, space, costs, budget, losses[name])
            for name in self.config.sensitivities
        }

    def _answer(
        self,
        subject: Subject,
        space: LayerSpace,
        costs: Costs,
        budget: float,
        lost: Sensitivities,
    ) -> tuple[int, ...]:
        """The least loss within the budget; a measured cost is corrected until it is met.

        What a recipe takes beyond the sum of its parts is added to the fixed part, and the
        knapsack solved again. Of the recipes that were timed, the one of least loss that is
        within the budget by :data:`MET` is taken.

        Raises:
            ValueError: none is (names the least that was reached).
        """
        if costs.kind != "measured here":
            return _solved(costs, lost, budget)
        shift, tried = 0.0, {}
        for _ in range(_CORRECTIONS):
            corrected = replace(costs, fixed=costs.fixed + shift)
            chosen = _solved(corrected, lost, budget)
            if chosen in tried:
                break
            if tried and self._left() < 2 * self._of_whole(subject):
                break  # the next would pass full_trainings; one is kept for a race's winner
            tried[chosen] = self._whole(subject, costs, space, chosen)
            if abs(tried[chosen] / budget - 1) <= MET / 2:
                break
            shift = tried[chosen] - costs.predicted(chosen)
            least = sum(map(min, costs.values)) + costs.fixed
            if least + shift > budget:  # dearest correction that still has an answer
                shift = budget - least
        met = {c: t for c, t in tried.items() if t <= budget * (1 + MET)}
        if not met:
            reached = min(tried.values())
            raise ValueError(
                f"search: none of {len(tried)} recipes timed as a whole meets a budget of "
                f"{budget:.6g} {costs.unit} ({budget / costs.dense:.4g} of dense) within "
                f"{MET:.0%}; the least reached is {reached:.6g} "
                f"({reached / costs.dense:.4g} of dense)"
            )
        return min(met, key=lambda c: _summed(lost, c))

    def _whole(
        self,
        subject: Subject,
        costs: Costs,
        space: LayerSpace,
        chosen: Sequence[int],
    ) -> float:
        """A recipe's cost as a whole; read where it was found before."""
        cost = cost_named(self.config.cost)
        return self._kept(
            f"whole-{space.digest(chosen)}",
            lambda: cost.whole(subject, space.recipe(chosen), costs.dense),
            subject,
        )

    def _refined(
        self,
        subject: Subject,
        space: LayerSpace,
        costs: Costs,
        budget: float,
        losses: Mapping[str, Sensitivities],
        answers: Mapping[str, tuple[int, ...]],
    ) -> tuple[str, tuple[int, ...]]:
        """The sensitivity and the choice that won the race, if there is one."""
        config = self.config
        first = config.sensitivities[0]
        beside = list(dict.fromkeys(c for c in answers.values() if c != answers[first]))
        if not beside and not config.neighbours:
            return first, answers[first]
        # What the race may spend: what is left besides the dense training, the measurements
        # and the winner's cost, and nothing for its training, which the race contains.
        left = config.full_trainings - 1 - self._measuring()
        left -= self._of_whole(subject) / self._passes()

        def make(chosen: tuple[int, ...]) -> Trial:
            return config.trial(space.recipe(chosen))

        def done(job: Job, result: TrialResult) -> None:
            del result
            whole = config.workload.epochs
            self._tell(f"race, candidate {job.candidate}", job.epochs, whole)

        # A measured cost was corrected: what the answer sums to is what may be spent.
        is_measured = costs.kind == "measured here"
        least = costs.predicted(answers[first])
        with pool(self.workers) as executor:
            found = refined(
                costs.values,
                losses[first],
                answers[first],
                (least if is_measured else budget) - costs.fixed,
                make,
                self.trials,
                executor,
                count=config.neighbours,
                beside=beside,
                full_trainings=left,
                done=done,
            )
        won = [name for name, answer in answers.items() if answer == found.choice]
        return (won or [first])[0], found.choice

    def _rows(self) -> list[dict[str, Any]]:
        """Every training of the folder, the best score first."""
        rows = [
            {
                "recipe": trial.label,
                "key": trial.key,
                "epochs": result.epochs,
                "MACs done": result.macs_ratio,
                "score": result.score,
                "loss": result.losses[-1],
            }
            for trial, result in self.trials.furthest()
        ]
        return sorted(rows, key=lambda row: (-row["epochs"], -row["score"], row["key"]))

    def _measuring(self) -> float:
        """Full trainings that the measurements were worth: passes over examples."""
        paths = [
            *self.folder.glob("costs.json"),
            *self.folder.glob("sensitivity-*.json"),
            *self.folder.glob("whole-*.json"),
        ]
        read = sum(
            json.loads(path.read_text(encoding="utf-8"))["examples"] for path in paths
        )
        return read / self._passes()

    def _passes(self) -> int:
        """Passes over an example that a full training is worth."""
        size = self.config.workload.task.train_size(self.data)
        return _PASSES_OF_A_STEP * size * self.config.workload.epochs

    def _left(self) -> float:
        """Passes over an example that measurements may still take; two are trained."""
        trained = max(2.0, self.trials.spent().full_trainings)
        left = self.config.full_trainings - trained - self._measuring()
        return left * self._passes()

    def _of_whole(self, subject: Subject) -> int:
        """Passes over an example that costing one recipe as a whole takes, at most."""
        made = [
            json.loads(path.read_text(encoding="utf-8"))["examples"]
            for path in self.folder.glob("whole-*.json")
        ]
        # Two steps where a rule for masks wants one before.
        batch = self.config.workload.task.size(subject.batches[0])
        return max([*made, 2 * _PASSES_OF_A_STEP * batch])


def _solved(costs: Costs, lost: Sensitivities, budget: float) -> tuple[int, ...]:
    least = costs.fixed + sum(map(min, costs.values))
    if least > budget * (1 + 1e-9):
        raise ValueError(
            f"search: nothing meets a budget of {budget:.6g} {costs.unit} "
            f"({budget / costs.dense:.4g} of dense); the least possible with these choices is "
            f"{least:.6g} ({least / costs.dense:.4g} of dense)"
        )
    return tuple(knapsack(costs.values, lost, max(0.0, budget - costs.fixed)))


def _summed(lost: Sensitivities, chosen: Sequence[int]) -> float:
    return sum(row[index] for row, index in zip(lost, chosen, strict=True))


def _front(costs: Costs, lost: Sensitivities) -> list[tuple[float, float]]:
    """Predicted cost and loss of the best choices under a sweep of budgets."""
    least = costs.fixed + sum(map(min, costs.values))
    most = costs.fixed + sum(map(max, costs.values))
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    for share in (0.0, *_FRONT):
        chosen = _solved(costs, lost, least + share * (most - least))
        found[chosen] = costs.predicted(chosen), _summed(lost, chosen)
    return sorted(found.values())


def _correlations(losses: Mapping[str, Sensitivities]) -> dict[str, float]:
    """Rank correlation of each sensitivity with the measured rise of the loss."""

    def flat(rows: Sensitivities) -> list[float]:
        return [value for row in rows for value in row]

    return {
        name: rank_correlation(flat(rows), flat(losses["loss"]))
        for name, rows in losses.items()
        if name != "loss"
    }
