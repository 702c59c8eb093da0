"""Runs that have begun, and checkpoints with a history and no network."""

from pathlib import Path

from elision.common.files import save_tensors
from elision.study import StudyConfig
from elision.study.config import file_name
from elision.study.folder import claimed
from elision.training.checkpoint import CHECKPOINT, EpochMetrics
from elision.workloads import Workload

__all__ = ["CONFIG", "SWAT", "begun_run", "checkpoint_of"]

SWAT = "swat(0.9)"
CONFIG = StudyConfig(
    workload=Workload.from_dict(
        {"name": "small", "dataset": "digits", "model": "mlp", "epochs": 2}
    ),
    recipes=("dense", SWAT),
    accelerators=("ant",),
    seeds=2,
)


def begun_run(folder: Path, config: StudyConfig = CONFIG) -> Path:
    """Claim a folder for a study, as its command does first, and leave it."""
    plain = {k: v for k, v in config.to_dict().items() if v is not None}
    with claimed(folder, plain):
        pass
    return folder


def checkpoint_of(
    run: Path, spec: str, *scores: float, seed: int | None = None
) -> Path:
    """Write the checkpoint of a recipe in a run folder.

    Args:
        run: the folder.
        spec: of the recipe.
        *scores: after each epoch; the loss is what they leave to one.
        seed: of a training that is not the first; None: of the first.
    """
    folder = run / "recipes" / file_name(spec)
    folder = folder if seed is None else folder / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        EpochMetrics(epoch, 1 - score, score, 0.1).to_row("test_accuracy")
        for epoch, score in enumerate(scores)
    ]
    save_tensors(folder / CHECKPOINT, {}, {"history": rows, "work": []})
    return folder / CHECKPOINT
