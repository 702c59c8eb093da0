"""Trial: one short training of a candidate, judged on held-out training examples, as data.

A trial is a workload, a recipe and a seed. It may be trained for a part of its epochs and
go on later: the schedules of the learning rate and of the recipe are those of the whole
training, stopped early, so that a trial that was promoted equals one that never paused. A
score after few epochs is therefore taken at a high learning rate; it ranks candidates
against one another and predicts no final score.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from elision.common.checks import integer, number, random_seed
from elision.common.files import without_nan
from elision.layers.recipe import Recipe
from elision.methods import check_recipe, is_external, make_recipe, recipe_from_dict
from elision.training import Execution
from elision.training.loop import (
    Progress,
    RunPlan,
    TrainingDivergedError,
    TrainResult,
    train,
)
from elision.workloads import Examples, Workload

__all__ = ["Trial", "TrialResult"]

#: Hexadecimal digits of a trial's key: 64 bits.
_DIGITS = 16
#: Steps from one whose work is counted to the next.
_METER_EVERY = 8


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to after some of its epochs; the same wherever it is trained.

    Attributes:
        scores: the task's metric on the held-out examples after each epoch; NaN from the
            epoch on in which the loss stopped being a number.
        losses: mean training loss of each epoch.
        steps: of the optimiser.
        examples: training examples that the steps read, those read again included.
        dense_macs: multiply-accumulates of the steps' products if nothing were left out,
            from those of the metered steps.
        done_macs: those that the recipe left to do.
        saved_bytes: (logical, stored) bytes of saved activations in the largest step; None
            without a memory policy.
        diverged: why the loss is no longer a number, where it is not.

    Example:
        >>> result = TrialResult((0.5, 0.75), (1.0, 0.8), 20, 1280, 1e6, 5e5)
        >>> result.epochs, result.score, result.macs_ratio
        (2, 0.75, 0.5)
    """

    scores: tuple[float, ...]
    losses: tuple[float, ...]
    steps: int
    examples: int
    dense_macs: float
    done_macs: float
    saved_bytes: tuple[int, int] | None = None
    diverged: str | None = None

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.scores)

    @property
    def score(self) -> float:
        """The metric after the last of them."""
        return self.scores[-1]

    @property
    def macs_ratio(self) -> float:
        """Work done over dense work."""
        return self.done_macs / self.dense_macs if self.dense_macs else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with None for NaN."""
        return without_nan(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialResult":
        """The result that :meth:`to_dict` wrote."""
        found = dict(values)
        for name in ("scores", "losses"):
            found[name] = tuple(math.nan if v is None else v for v in values[name])
        if found.get("saved_bytes") is not None:
            logical, stored = found["saved_bytes"]
            found["saved_bytes"] = (logical, stored)
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate at a seed: what is trained, and how long in all.

    Attributes:
        workload: task, data, network and settings; ``epochs`` is the whole training, by
            which the schedules go.
        recipe: spec of the recipe, whose schedule is fitted to the whole training, or a
            recipe as it is. A file or a module's object is read once, here.
        seed: of initial weights, batches and augmentation.
        held_out: share of the training examples that judges; the rest is trained on. The
            test examples are never read.
        execution: engine, saved activations, device and precision.

    Raises:
        ValueError: a number is out of range, or a recipe unknown.

    Example:
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=2,
        ...                  train_images=160, model_options={"width": 8})
        >>> trial = Trial(workload=small, recipe="swat:sparsity=0.5")
        >>> once, whole = trial.trained(1), trial.trained(2)
        >>> once.scores == whole.scores[:1], round(whole.macs_ratio, 2) < 1
        (True, True)
    """

    workload: Workload
    recipe: str | Recipe = "dense"
    seed: int = 0
    held_out: float = 0.2
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        random_seed("trial", "seed", self.seed)
        number("trial", "held_out", self.held_out, "(0, 1)")
        if isinstance(self.recipe, str):
            check_recipe(self.recipe)
            if is_external(self.recipe):  # what it names may change; the trial may not
                object.__setattr__(self, "recipe", make_recipe(self.recipe))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which :meth:`from_dict` makes the trial again.

        Raises:
            ValueError: the recipe has transforms of one's own program.
        """
        kept = self.recipe if isinstance(self.recipe, str) else self.recipe.to_dict()
        values: dict[str, Any] = {
            "workload": self.workload.to_dict(),
            "recipe": kept,
            "seed": self.seed,
            "held_out": self.held_out,
        }
        execution = self.execution.not_default()
        return values | ({"execution": execution} if execution else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trial":
        """The trial that :meth:`to_dict` wrote."""
        recipe = values["recipe"]
        return cls(
            workload=Workload.from_dict(values["workload"]),
            recipe=recipe if isinstance(recipe, str) else recipe_from_dict(recipe),
            seed=values["seed"],
            held_out=values["held_out"],
            execution=Execution(**values.get("execution", {})),
        )

    @cached_property
    def key(self) -> str:
        """Digest of the description: trials of one key are the same training."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    @property
    def label(self) -> str:
        """The recipe in words."""
        return self.recipe if isinstance(self.recipe, str) else self.recipe.name

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self.workload.epochs

    def loss(self, result: TrialResult) -> float:
        """What a search minimises: the held-out metric, its sign turned where more is better.

        Infinite where the training diverged.
        """
        if math.isnan(result.score):
            return math.inf
        better = self.workload.task.metric.higher_is_better
        return -result.score if better else result.score

    def data(self) -> Examples:
        """The training examples, some of them held out in place of the test."""
        return self.workload.load_dataset().held_out(self.held_out)

    def fitted(self, dataset: Examples) -> Recipe:
        """The recipe, its schedule fitted to the whole training."""
        if not isinstance(self.recipe, str):
            return self.recipe
        steps = self.epochs * self.workload.steps_per_epoch(dataset)
        return make_recipe(self.recipe, steps=steps)

    def trained(
        self,
        epochs: int,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> TrialResult:
        """Train up to so many of the epochs, or what is left of them.

        Args:
            epochs: up to :attr:`epochs`.
            folder: of the checkpoint that the trial goes on from; None: from the start,
                as where the checkpoint is further on.
            progress: called after every step and epoch.

        Raises:
            ValueError: ``epochs`` is out of range, or the data cannot be divided.
        """
        integer("trial", "epochs", epochs, f"[1, {self.epochs}]")
        dataset = self.data()
        plan = RunPlan(seed=self.seed, meter_every=_METER_EVERY, pause_after=epochs)
        try:
            result = train(
                self.workload,
                self.fitted(dataset),
                dataset,
                plan,
                execution=self.execution,
                folder=folder,
                progress=progress,
            )
        except TrainingDivergedError as error:
            if error.result is None:
                raise
            result = error.result
        if len(result.history) > epochs:
            return self.trained(epochs, None, progress)
        return self._result(result, dataset)

    def _result(self, found: TrainResult, dataset: Examples) -> TrialResult:
        epochs, work = len(found.history), found.meter.total()
        steps = epochs * self.workload.steps_per_epoch(dataset)
        # Steps that a metered one stands for. A run at NaN ends at a step of its own.
        each = _METER_EVERY if found.diverged else steps / -(-steps // _METER_EVERY)
        return TrialResult(
            scores=tuple(metrics.score for metrics in found.history),
            losses=tuple(metrics.loss for metrics in found.history),
            steps=steps,
            examples=epochs * self.workload.task.train_size(dataset),
            dense_macs=work.dense_macs * each,
            done_macs=work.done_macs * each,
            saved_bytes=found.saved_bytes,
            diverged=found.diverged,
        )
