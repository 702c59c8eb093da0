"""elision study."""

import os
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
    engine: str = "torch",
    memory: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    seed: int = 0,
    seeds: int = 1,
    epochs: int | None = None,
    data: Path | None = None,
    record: int = 2,
    samples: int = 2,
    workers: int | None = None,
    ray: str | None = None,
    out: Path | None = None,
) -> None:
    """Train under several recipes, record, simulate, compare: the main job.

    Started again with the same arguments, it continues where it was interrupted.

    Parameters
    ----------
    workload
        Preset of task, data, model and training settings.
    recipe
        NAME or NAME:parameter=value,...; default: dense, SWAT, W-ReSprop, meProp.
    accelerator
        NAME or NAME:parameter=value,...; default: dense, SCNN and ANT.
    probe
        Measurements on every trained model: NAME or NAME:parameter=value,... such as
        'memory:policy=bits(4)': bytes, peak, gradient errors and codec noise per layer.
    engine
        Who computes the products: torch (the same numbers on every machine of one kind),
        native (sparse kernels), or auto (the faster of the two, timed once and kept, so
        that runs repeat on this machine).
    memory
        Policy that keeps saved activations in fewer bytes while training, such as
        'bits(4)'; default: plain autograd.
    device
        cpu, cuda, cuda:0 or mps.
    precision
        fp32, or bf16 or fp16 for products under autocast.
    seed
        Of initial weights, batches and augmentation.
    seeds
        Runs of each recipe, at consecutive seeds; tables show mean and spread.
    epochs
        Passes over the data; default: the workload's.
    data
        Folder of the data set, for those that need one.
    record
        Epochs whose last step is recorded.
    samples
        Examples kept of each recorded step.
    workers
        Processes that train recipes and seeds side by side; default: one. The results
        are the same; seconds per step are longer where processors are shared.
    ray
        Address of a Ray cluster that trains them (needs the ray extra, and the run
        folder on a file system that its machines share); "local" starts one here.
    out
        Run folder; default: runs/study-WORKLOAD.
    """
    from elision.study import DEFAULT_ACCELERATORS, DEFAULT_RECIPES, StudyConfig

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # set by torchrun
        raise ValueError(
            "elision study runs in one process; `elision train` under torchrun shares "
            "its batches, --workers spreads a study's recipes"
        )

    config = StudyConfig(
        workload=workload,
        recipes=recipe or DEFAULT_RECIPES,
        accelerators=accelerator or DEFAULT_ACCELERATORS,
        probes=probe,
        seed=seed,
        seeds=seeds,
        epochs=epochs,
        data=None if data is None else str(data),
        record=record,
        samples=samples,
        engine=engine,
        memory=memory,
        device=device,
        precision=precision,
    )
    folder = out or Path("runs") / f"study-{workload}"
    run(config, folder, workers=workers, ray=ray)
    print(f"\nreport: {folder / 'report.html'}")
