"""A study's outcome with all that a page shows, made without training."""

from elision.accelerators import ACCELERATORS
from elision.accelerators.simulate import simulate
from elision.common.specs import build
from elision.methods import make_recipe
from elision.products import Conv2dGeometry, Product, Trace, synthetic_products
from elision.products.describe import count
from elision.study.config import StudyConfig
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.training.checkpoint import EpochMetrics

__all__ = ["HOSTILE", "made_study"]

#: A layer's name that would run where a page took it for more than a name.
HOSTILE = "<img src=x onerror=alert(1)>"

_LAYERS = [
    ("first", Conv2dGeometry(1, 2, 8, 8, 3, 3, 1, 1)),
    (HOSTILE, Conv2dGeometry(1, 3, 8, 8, 4, 3, 2, 1)),
]
_MACHINES = ("dense", "scnn", "ant", "systolic:rows=8,columns=8")
#: Recipes, the scores of three seeds, and the share of work that they leave.
_RECIPES = {
    "dense": ((0.80, 0.81, 0.82), 1.0),
    "swat:sparsity=0.9": ((0.79, 0.81, 0.81), 0.12),
    "meprop-unified:keep=0.1": ((0.70, 0.72, 0.71), 0.4),
}


def made_study(seeds: int = 3) -> StudyOutcome:
    """An outcome of three recipes on four machines, with seconds of a step.

    Args:
        seeds: runs of each recipe, up to three.
    """
    config = StudyConfig(
        workload="digits-cnn",
        recipes=tuple(_RECIPES),
        accelerators=_MACHINES,
        seeds=seeds,
    )
    outcomes = [
        _outcome(spec, scores[:seeds], work)
        for spec, (scores, work) in _RECIPES.items()
    ]
    seconds = {"dense": 0.1, "swat:sparsity=0.9": 0.12, "meprop-unified:keep=0.1": 0.11}
    trace = Trace()
    trace.extend(Trace.of(synthetic_products(_LAYERS, 0.5)), recipe="dense")
    return StudyOutcome(config, outcomes, {"threads": 2}, seconds, "made", trace)


def _outcome(spec: str, scores: tuple[float, ...], work: float) -> RecipeOutcome:
    products = list(synthetic_products(_LAYERS, 1 - work / 2))
    machines = {name: build("accelerator", name, ACCELERATORS) for name in _MACHINES}
    histories = {
        seed: [EpochMetrics(e, 1 / (e + 1), score * (e + 1) / 2, 0.1) for e in range(2)]
        for seed, score in enumerate(scores)
    }
    return RecipeOutcome(
        spec,
        make_recipe(spec, steps=10),
        histories,
        work,
        {p.value: work for p in Product},
        [],
        list(count(products)),
        list(simulate(products, machines)),
    )
