"""The trainings of the precision study: every recipe, several seeds, and its prices."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elision.accelerators import ACCELERATORS
from elision.accelerators.simulate import simulate, total
from elision.methods import make_recipe
from elision.products import Trace
from elision.training.loop import RunPlan, TrainingDivergedError, train
from elision.workloads import Dataset, Workload, find_workload

__all__ = [
    "NETWORKS",
    "RECIPES",
    "REFERENCE",
    "curves",
    "mean",
    "priced",
    "study_workload",
    "trained",
    "words",
]

#: What the others are compared with: float32, nothing left out.
REFERENCE = "dense"

#: Recipes that are trained by default, sparse operands in narrow formats the last two.
RECIPES = (
    *("bf16", "fp16", "fp8", "dfp16", "mxfp8", "mxfp4", "int8", "bcgd"),
    *("swat+fp8", "rigl+dfp16"),
)

#: Networks of the study, small enough for seconds of one core a run: preset and settings.
NETWORKS: dict[str, dict[str, Any]] = {
    "digits-cnn": {},
    "photo-resnet8": {"model_options": {"width": 8}},
}

#: Steps between two whose work is counted. Prime, so that it meets every phase of the
#: moves of a mask, which come at multiples of a number of steps.
_METER_EVERY = 7

#: Examples of a step that are priced.
_SAMPLES = 2


def study_workload(
    network: str, *, epochs: int, train_images: int, test_images: int
) -> Workload:
    """A network with data that ship, cut to size.

    Args:
        network: key of :data:`NETWORKS`.
        epochs: passes over the images.
        train_images: upper limit of the images for training.
        test_images: upper limit of the images for testing.

    Raises:
        ValueError: a number is out of its range.
    """
    return find_workload(network).changed(
        **NETWORKS[network],
        epochs=epochs,
        train_images=train_images,
        test_images=test_images,
        name=network,
    )


def trained(
    workload: Workload, dataset: Dataset, recipe: str, seed: int, *, prices: bool
) -> dict[str, Any]:
    """Train one recipe at one seed.

    Weights, batches and their order follow from the seed alone.

    Args:
        workload: task, model and settings.
        dataset: of the workload.
        recipe: spec of the recipe.
        seed: of the run.
        prices: whether to record one step of the last epoch and price it.

    Returns:
        Plain values: ``accuracy`` and ``loss`` of every epoch, None where the loss is no
        number; ``work``, multiply-accumulates over those of dense training; ``macs`` of a
        counted step; ``diverged``, why, or None; ``costs``, see :func:`priced`.
    """
    steps = workload.epochs * workload.steps_per_epoch(dataset)
    method = make_recipe(recipe, steps=steps)
    plan = RunPlan(
        seed=seed,
        meter_every=_METER_EVERY,
        record_epochs=(workload.epochs - 1,) if prices else (),
        record_samples=_SAMPLES,
    )
    try:
        result = train(workload, method, dataset, plan)
    except TrainingDivergedError as error:
        if error.result is None:
            raise
        result = error.result
    work = result.meter.total()
    return {
        "accuracy": [epoch.score for epoch in result.history],
        "loss": [epoch.loss for epoch in result.history],
        "work": work.ratio,
        "macs": work.done_macs / -(-steps // _METER_EVERY),
        "diverged": result.diverged,
        "costs": priced(result.trace),
    }


def priced(trace: Trace) -> list[dict[str, Any]]:
    """What a recorded step costs on every accelerator.

    Returns:
        Rows: ``accelerator``, ``formats`` of the operands, ``cycles``, ``multiplies``,
        ``energy_on_chip_pj``, ``area_mm2`` (None where the machine has none).
    """
    products = list(trace.multiplied())
    machines = {name: machine() for name, machine in ACCELERATORS.items()}
    formats = ", ".join(dict.fromkeys(str(p.arithmetic) for p in products))
    sums = total(simulate(products, machines))
    return [
        {
            "accelerator": name,
            "formats": formats,
            "cycles": (cost := parts["total"]).cycles,
            "multiplies": cost.multiplies,
            "energy_on_chip_pj": cost.energy_on_chip_pj,
            "area_mm2": cost.area_mm2,
        }
        for name, parts in sums.items()
    ]


def mean(values: Iterable[float | None]) -> tuple[float | None, float]:
    """Mean and standard deviation of the values that are numbers; None without any."""
    known = [value for value in values if value is not None]
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    return (statistics.fmean(known) if known else None), spread


def words(values: Sequence[float | None], form: str = ".2f", scale: float = 1) -> str:
    """Mean ± standard deviation of the values that are numbers, in words.

    Example:
        >>> words([0.96, 0.98], ".1f", 100)
        '97.0 ± 1.4'
    """
    middle, spread = mean(values)
    if middle is None:
        return "diverged"
    text = f"{scale * middle:{form}}"
    if sum(value is not None for value in values) == 1:
        return text
    return f"{text} ± {scale * spread:{form.lstrip('+')}}"


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], key: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Mean and standard deviation over seeds by epoch, of recipes that did not diverge.

    Args:
        runs: recipe -> results of :func:`trained`, one a seed.
        key: ``"accuracy"`` or ``"loss"``.
    """
    found = {}
    for recipe, seeds in runs.items():
        epochs = [mean(values) for values in zip(*(s[key] for s in seeds), strict=True)]
        if all(middle is not None for middle, _ in epochs):
            found[recipe] = ([m for m, _ in epochs], [s for _, s in epochs])
    return found
