"""elision train."""

from pathlib import Path

from elision.cli.flags import Integer, Integers, Loggers, number_or_list
from elision.cli.running import run, run_share
from elision.cli.training import GridFlags, WorkloadFlags, folder_for

__all__ = ["train"]


def train(
    recipe: str = "dense",
    *,
    workload: str = "photo-resnet8",
    engine: str = "auto",
    memory: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    compress: str | None = None,
    outer: str | None = None,
    teacher: str | None = None,
    distill: str | None = None,
    seed: Integer = 0,
    seeds: Integers = (),
    epochs: Integer | None = None,
    data: Path | None = None,
    changes: WorkloadFlags | None = None,
    record: Integer = 2,
    samples: Integer = 2,
    electricity: GridFlags | None = None,
    log: Loggers = (),
    out: Path | None = None,
) -> None:
    """Train under one recipe: a study without machines.

    The run folder holds the checkpoint, the metrics, the trace and a report. Started
    again with the same arguments, the training continues where it was interrupted.

    Under torchrun the processes share every batch (DistributedDataParallel over gloo, or
    NCCL with --device cuda), rank 0 writes the same folder:
    torchrun --nproc_per_node=2 -m elision train ...

    Parameters
    ----------
    recipe
        NAME or NAME:parameter=value,...
    workload
        Preset of task, data, model and training settings, or a TOML file with a table
        [workload], such as a run folder's workload.toml.
    engine
        Who computes the products: auto (the faster of the other two, timed once and
        kept, so that runs repeat on this machine), native (sparse kernels) or torch.
    memory
        Policy that keeps saved activations in fewer bytes, such as 'bits(4)'; default:
        plain autograd.
    device
        cpu, cuda, cuda:0 or mps.
    precision
        fp32, or bf16 or fp16 for products under autocast.
    compress
        How weight gradients travel between the processes of torchrun, such as
        'top-k:share=0.01', powersgd:rank=4 or int8; default: as they are.
    outer
        Rule by which the processes of torchrun train alone and meet rarely, such as
        diloco:every=50, local-sgd:every=8 or 'diloco:every=50,fragments=4'; with
        --compress what they send then is compressed. Default: gradients travel at every
        step.
    teacher
        Folder of a finished run whose network, under its first recipe, teaches; RUN:RECIPE
        for another of its recipes.
    distill
        What is learnt from the teacher, such as hinton:temperature=4,weight=0.9, or
        'hinton(4)+attention(layer3)'; 'average' has a teacher of its own.
    seed
        Of initial weights, batches and augmentation.
    seeds
        Runs: their number, at consecutive seeds, or two seeds or more; the table shows
        mean and spread.
    epochs
        Passes over the data; default: the workload's.
    data
        Folder of the data set, for those that need one.
    record
        Epochs whose last step is recorded.
    samples
        Examples kept of each recorded step.
    log
        Loggers of the trainings: tensorboard, wandb or mlflow, each with its extra, in the
        run folder; NAME:TARGET for a folder of tensorboard's, a project of wandb's, the
        URI of a store of mlflow's. Under torchrun --logger, since --log is a beginning of
        flags of its own.
    out
        Run folder; default: runs/train-WORKLOAD-RECIPE, or the next of
        runs/train-WORKLOAD-RECIPE-2 and so on that holds no other run.
    """
    from elision.study import StudyConfig, file_name
    from elision.training import joined

    grid = (electricity or GridFlags()).chosen()
    given = changes or WorkloadFlags()
    with joined(device) as ranks:
        config = StudyConfig(
            workload=given.workload(workload),
            recipes=(recipe,),
            accelerators=(),
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
            compress=compress,
            outer=outer,
            teacher=teacher,
            distill=distill,
            processes=ranks.count,
        )
        usual = f"train-{config.workload_name}-{file_name(recipe)}"
        # One rank looks; the others hear of it.
        found = folder_for(config, out, usual) if ranks.is_first else Path()
        folder, *_ = ranks.gather(found)
        if ranks.count == 1:
            run(config, folder, grid=grid, log=log)
        elif not run_share(config, folder, ranks, grid, log):
            return
    print(f"\nrun folder: {folder}")
