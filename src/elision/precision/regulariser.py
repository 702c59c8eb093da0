"""Is low precision a regulariser? Rounding beside noise of its size and another shape.

A network is trained with the inputs and weights of its forward products rounded, or with
noise of the same size in place of the rounding's error, and with nothing. All runs of one
seed begin with the same weights and see the same batches, so differences are taken seed by
seed. Losses are those of the trained weights in float32, on training and on test data, so
that only what training made of the weights is compared; the test loss with the rounding
left on stands beside them.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.layers import Recipe, Table, elide, restore
from elision.operands import Cast, Noise, Transform
from elision.products import Product

__all__ = ["PLAIN", "Regularised", "Run", "arms", "regularised"]

#: The arm that nothing is done to.
PLAIN = "float32"

#: Two-sided five per cent points of Student's t by degrees of freedom, 1 to 9.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def arms(format: str) -> dict[str, Recipe]:
    """Rounding to a format, and noise of its size, by name.

    Example:
        >>> list(arms("int4"))[:2]
        ['int4 nearest', 'int4 gaussian']
    """
    nearest, stochastic = Cast(format), Cast(format, rounding="stochastic")
    made: dict[str, Transform] = {
        "nearest": nearest,
        "gaussian": Noise(nearest, "gaussian"),
        "uniform": Noise(nearest, "uniform"),
        "shuffled": Noise(nearest, "shuffled"),
        "stochastic": stochastic,
        "gaussian, stochastic's size": Noise(stochastic, "gaussian"),
    }
    return {
        f"{format} {name}": Recipe(
            name, Table({Product.FORWARD: {"input": how, "weight": how}})
        )
        for name, how in made.items()
    }


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        arm: name; :data:`PLAIN` for none.
        seed: of weights and batches.
        train_loss, test_loss: of the trained weights in float32.
        test_accuracy: of the same, in [0, 1].
        own_test_loss: test loss under the arm's recipe, outside of training.
    """

    arm: str
    seed: int
    train_loss: float
    test_loss: float
    test_accuracy: float
    own_test_loss: float


@dataclass(frozen=True)
class Regularised:
    """All runs of an experiment.

    Attributes:
        runs: one for each arm and seed.

    Example:
        >>> runs = [Run("float32", s, 0.1, 0.5 + s, 0.9, 0.5 + s) for s in range(3)]
        >>> runs += [Run("int4", s, 0.2, 0.4 + s + s / 100, 0.9, 0.5) for s in range(3)]
        >>> Regularised(tuple(runs)).rows()[1]["test loss, difference"]
        '-0.09 ± 0.01'
        >>> Regularised(tuple(runs)).rows()[1]["answer"]
        'lower'
    """

    runs: tuple[Run, ...]

    def of(self, arm: str) -> list[Run]:
        """The runs of one arm, in the order of seeds."""
        return sorted((r for r in self.runs if r.arm == arm), key=lambda run: run.seed)

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in order."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def differences(self, arm: str, value: str = "test_loss") -> list[float]:
        """What an arm has more of than the plain one, seed by seed."""
        pairs = zip(self.of(arm), self.of(PLAIN), strict=True)
        return [getattr(mine, value) - getattr(plain, value) for mine, plain in pairs]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each arm: means and deviations over seeds, and the answer.

        The answer is "lower" or "higher" where the mean paired difference of the test loss
        is further from zero than Student's t allows at five per cent, else "no difference".
        With many arms some are that by chance: one in twenty. An arm of which a run ends
        with a loss that is not finite has "diverged".
        """
        return [self._row(arm) for arm in self.arms]

    def _row(self, arm: str) -> dict[str, Any]:
        runs = self.of(arm)
        row = {"arm": arm, "seeds": len(runs)}
        for label, name in (
            ("train loss", "train_loss"),
            ("test loss", "test_loss"),
            ("test accuracy", "test_accuracy"),
            ("test loss, as trained", "own_test_loss"),
        ):
            row[label] = _spread([getattr(run, name) for run in runs])
        if arm != PLAIN:
            differences = self.differences(arm)
            row["test loss, difference"] = _spread(differences)
            row["answer"] = _answer(differences)
        return row

    def to_dict(self) -> dict[str, Any]:
        """Runs and rows as plain values."""
        return {"runs": [asdict(run) for run in self.runs], "rows": self.rows()}


def regularised(
    make_model: Callable[[], nn.Module],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    *,
    epochs: int = 30,
    batch_size: int = 50,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Regularised:
    """Train one network under each recipe and under none, on the same seeds.

    SGD with momentum, no weight decay (which regularises), a learning rate that falls to
    zero as a cosine.

    Args:
        make_model: a new network, its weights drawn from torch's global generator.
        train: inputs and labels.
        test: inputs and labels.
        recipes: arms by name, such as :func:`arms` gives.
        seeds: of initial weights and of the order of examples.
        epochs: passes over the training data.
        batch_size: examples of a step; a last smaller batch is left out.
        learning_rate: at the start.
        momentum: of SGD, Nesterov's form.
        progress: called with runs done and runs in all.

    Raises:
        ValueError: fewer than two seeds, of which no spread follows, one of them twice, or
            a batch larger than the training data.
    """
    if len(seeds) < 2:
        raise ValueError(f"regularised: needs two seeds or more, got {list(seeds)}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"regularised: needs different seeds, got {list(seeds)}")
    integer("regularised", "epochs", epochs)
    integer("regularised", "batch_size", batch_size, f"[1, {len(train[0])}]")
    choices: dict[str, Recipe | None] = {PLAIN: None, **recipes}
    runs: list[Run] = []
    for seed in seeds:
        for arm, recipe in choices.items():
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = make_model()
                if recipe is not None:
                    elide(model, recipe, engine="torch")
                _train(model, train, seed, epochs, batch_size, learning_rate, momentum)
            own = _evaluated(model, test)[0]
            restore(model)
            loss, accuracy = _evaluated(model, test)
            runs.append(
                Run(arm, seed, _evaluated(model, train)[0], loss, accuracy, own)
            )
            progress(len(runs), len(choices) * len(seeds))
    return Regularised(tuple(runs))


def _train(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    seed: int,
    epochs: int,
    batch_size: int,
    rate: float,
    momentum: float,
) -> None:
    inputs, labels = train
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum, nesterov=True)
    steps = epochs * (len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.train()
    for _ in range(epochs):
        # A last batch that is smaller than the others is left out.
        for chosen in torch.randperm(len(inputs), generator=order).split(batch_size):
            if len(chosen) == batch_size:
                optimiser.zero_grad()
                nn.functional.cross_entropy(
                    model(inputs[chosen]), labels[chosen]
                ).backward()
                optimiser.step()
                schedule.step()


@torch.no_grad()
def _evaluated(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Mean loss and accuracy in evaluation mode."""
    inputs, labels = data
    scores = model.eval()(inputs)
    right = (scores.argmax(1) == labels).double().mean()
    return float(nn.functional.cross_entropy(scores, labels)), float(right)


def _spread(values: Sequence[float]) -> str:
    if not all(map(math.isfinite, values)):
        return f"{sum(not math.isfinite(v) for v in values)} of {len(values)} diverged"
    return f"{statistics.fmean(values):.3g} ± {statistics.stdev(values):.2g}"


def _answer(differences: Sequence[float]) -> str:
    if not all(map(math.isfinite, differences)):
        return "diverged"
    free = len(differences) - 1
    deviation = statistics.stdev(differences)
    allowed = _STUDENT[min(free, len(_STUDENT)) - 1] * deviation / math.sqrt(free + 1)
    mean = statistics.fmean(differences)
    if abs(mean) <= allowed:
        return "no difference"
    return "lower" if mean < 0 else "higher"
