"""elision train."""

from pathlib import Path

from elision.cli.running import run, run_share

__all__ = ["train"]


def train(
    recipe: str = "dense",
    *,
    workload: str = "photo-resnet8",
    engine: str = "auto",
    memory: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    seed: int = 0,
    seeds: int = 1,
    epochs: int | None = None,
    data: Path | None = None,
    record: int = 2,
    samples: int = 2,
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
        Preset of task, data, model and training settings.
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
    seed
        Of initial weights, batches and augmentation.
    seeds
        Runs at consecutive seeds; the table shows mean and spread.
    epochs
        Passes over the data; default: the workload's.
    data
        Folder of the data set, for those that need one.
    record
        Epochs whose last step is recorded.
    samples
        Examples kept of each recorded step.
    out
        Run folder; default: runs/train-WORKLOAD-RECIPE.
    """
    from elision.study import StudyConfig, file_name
    from elision.training import joined

    folder = out or Path("runs") / f"train-{workload}-{file_name(recipe)}"
    with joined(device) as ranks:
        config = StudyConfig(
            workload=workload,
            recipes=(recipe,),
            accelerators=(),
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
            processes=ranks.count,
        )
        if ranks.count == 1:
            run(config, folder)
        elif not run_share(config, folder, ranks):
            return
    print(f"\nrun folder: {folder}")
