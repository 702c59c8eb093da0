"""elision train."""

from pathlib import Path

from elision.cli.running import run

__all__ = ["train"]


def train(
    recipe: str = "dense",
    *,
    workload: str = "photo-resnet8",
    seed: int = 0,
    epochs: int | None = None,
    data: Path | None = None,
    record: int = 2,
    samples: int = 2,
    out: Path | None = None,
) -> None:
    """Train under one recipe: a study without machines.

    The run folder holds the checkpoint, the metrics, the trace and a report. Started
    again with the same arguments, the training continues where it was interrupted.

    Parameters
    ----------
    recipe
        NAME or NAME:parameter=value,...
    workload
        Preset of data, model and training settings.
    seed
        Of initial weights, batches and augmentation.
    epochs
        Passes over the data; default: the workload's.
    data
        Folder of the data set, for those that need one.
    record
        Epochs whose last step is recorded.
    samples
        Images kept of each recorded step.
    out
        Run folder; default: runs/train-WORKLOAD-RECIPE.
    """
    from elision.study import StudyConfig, file_name

    config = StudyConfig(
        workload=workload,
        recipes=(recipe,),
        accelerators=(),
        seed=seed,
        epochs=epochs,
        data=None if data is None else str(data),
        record=record,
        samples=samples,
    )
    folder = out or Path("runs") / f"train-{workload}-{file_name(recipe)}"
    run(config, folder)
    print(f"\nrun folder: {folder}")
