"""elision study."""

from pathlib import Path

from elision.cli.flags import Specs
from elision.cli.running import run

__all__ = ["study"]


def study(
    *,
    workload: str = "photo-resnet8",
    recipe: Specs = (),
    accelerator: Specs = (),
    probe: Specs = (),
    memory: Specs = (),
    seed: int = 0,
    epochs: int | None = None,
    data: Path | None = None,
    record: int = 2,
    samples: int = 2,
    out: Path | None = None,
) -> None:
    """Train under several recipes, record, simulate, compare: the main job.

    Started again with the same arguments, it continues where it was interrupted.

    Parameters
    ----------
    workload
        Preset of data, model and training settings.
    recipe
        NAME or NAME:parameter=value,...; default: dense, SWAT, W-ReSprop, meProp.
    accelerator
        NAME or NAME:parameter=value,...; default: dense, SCNN and ANT.
    probe
        What else to ask of every trained model: NAME or NAME:parameter=value,...
    memory
        Policies for saved activations to try on every trained model, such as 'bits(4)':
        bytes, measured peak, gradient errors and codec noise per layer.
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
        Run folder; default: runs/study-WORKLOAD.
    """
    from elision.common.specs import Spec
    from elision.study import DEFAULT_ACCELERATORS, DEFAULT_RECIPES, StudyConfig

    config = StudyConfig(
        workload=workload,
        recipes=recipe or DEFAULT_RECIPES,
        accelerators=accelerator or DEFAULT_ACCELERATORS,
        probes=(*probe, *(str(Spec("memory", (), {"policy": p})) for p in memory)),
        seed=seed,
        epochs=epochs,
        data=None if data is None else str(data),
        record=record,
        samples=samples,
    )
    folder = out or Path("runs") / f"study-{workload}"
    run(config, folder)
    print(f"\nreport: {folder / 'report.html'}")
