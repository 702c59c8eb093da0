"""elision study."""

import os
from pathlib import Path

from elision.cli.flags import Integer, Integers, Loggers, Specs, number_or_list
from elision.cli.running import run
from elision.cli.training import GridFlags, WorkloadFlags, folder_for

__all__ = ["study"]


def study(
    *,
    workload: str = "photo-resnet8",
    recipe: Specs = (),
    accelerator: Specs = (),
    probe: Specs = (),
    resume: Path | None = None,
    engine: str = "torch",
    memory: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    teacher: str | None = None,
    distill: str | None = None,
    seed: Integer = 0,
    seeds: Integers = (),
    epochs: Integer | None = None,
    data: Path | None = None,
    changes: WorkloadFlags | None = None,
    record: Integer = 2,
    samples: Integer = 2,
    workers: Integer | None = None,
    ray: str | None = None,
    electricity: GridFlags | None = None,
    log: Loggers = (),
    out: Path | None = None,
) -> None:
    """Train under several recipes, record, simulate, compare: the main job.

    Started again with the same arguments, it continues where it was interrupted; with
    more recipes, machines, probes or seeds, it adds what is missing and trains nothing
    again.

    Parameters
    ----------
    workload
        Preset of task, data, model and training settings, or a TOML file with a table
        [workload], such as a run folder's workload.toml.
    recipe
        NAME or NAME:parameter=value,...; default: dense, SWAT, W-ReSprop, meProp.
    accelerator
        NAME or NAME:parameter=value,...; default: dense, SCNN and ANT; none: none.
    probe
        Measurements on every trained model: NAME or NAME:parameter=value,... such as
        'memory:policy=bits(4)': bytes, peak, gradient errors and codec noise per layer.
    resume
        Run folder to add recipes, machines, probes and seeds to; all else is its own.
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
    teacher
        Folder of a finished run whose network, under its first recipe, teaches; RUN:RECIPE
        for another of its recipes.
    distill
        What is learnt from the teacher, such as hinton:temperature=4,weight=0.9, or
        'hinton(4)+attention(layer3)'; 'average' has a teacher of its own.
    seed
        Of initial weights, batches and augmentation.
    seeds
        Runs of each recipe: their number, at consecutive seeds, or two seeds or more;
        tables show mean and spread.
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
    log
        Loggers of the trainings: tensorboard, wandb or mlflow, each with its extra, in the
        run folder; NAME:TARGET for a folder of tensorboard's, a project of wandb's, the
        URI of a store of mlflow's.
    out
        Run folder; default: runs/study-WORKLOAD, or the next of runs/study-WORKLOAD-2
        and so on that holds no other study.
    """
    from elision.study import (
        DEFAULT_ACCELERATORS,
        DEFAULT_RECIPES,
        StudyConfig,
        added_to,
    )

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # set by torchrun
        raise ValueError(
            "elision study runs in one process; `elision train` under torchrun shares "
            "its batches, --workers spreads a study's recipes"
        )

    grid = (electricity or GridFlags()).chosen()
    given = changes or WorkloadFlags()
    machines = () if accelerator == ("none",) else accelerator or DEFAULT_ACCELERATORS
    config = StudyConfig(
        workload=given.workload(workload),
        recipes=recipe or DEFAULT_RECIPES,
        accelerators=machines,
        probes=probe,
        seed=seed,
        seeds=number_or_list(seeds) or 1,
        epochs=epochs,
        data=None if data is None else str(data),
        record=record,
        samples=samples,
        engine=engine,
        memory=memory,
        device=device,
        precision=precision,
        teacher=teacher,
        distill=distill,
    )
    if resume is None:
        folder = folder_for(config, out, f"study-{config.workload_name}")
    else:
        fixed = StudyConfig(
            recipes=config.recipes,
            accelerators=config.accelerators,
            probes=config.probes,
            seeds=config.seeds,
            seed=seed if seeds else 0,
        )
        if out is not None or config != fixed:
            raise ValueError(
                "study --resume: all but recipes, machines, probes and seeds is as in "
                f"{resume}; leave out the other flags"
            )
        config = added_to(
            resume,
            recipes=recipe,
            accelerators=machines if accelerator else (),
            probes=probe,
            seeds=number_or_list(seeds),
        )
        folder = resume
    run(config, folder, workers=workers, ray=ray, grid=grid, log=log)
    print(f"\nreport: {folder / 'report.html'}")
