"""A network that a command trains because it is given no finished run."""

from pathlib import Path

from torch import nn

from elision.methods import make_recipe
from elision.training.execution import Execution
from elision.training.loop import Progress, RunPlan, train
from elision.workloads import Dataset, Workload

__all__ = ["trained_for"]


def trained_for(
    workload: Workload,
    recipe: str,
    dataset: Dataset,
    *,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """The workload's network, trained under a recipe, elided still, on the CPU.

    Args:
        workload: task, model and settings.
        recipe: its text.
        dataset: the workload's data.
        seed: of the training.
        folder: of the checkpoint, so that it is trained once.
        progress: see :func:`elision.training.train`.

    Raises:
        ValueError: an unknown recipe.
    """
    total = workload.epochs * workload.steps_per_epoch(dataset)
    done = train(
        workload,
        make_recipe(recipe, steps=total),
        dataset,
        RunPlan(seed=seed),
        execution=Execution(engine="torch"),
        folder=folder,
        progress=progress,
    )
    return done.model.cpu()
