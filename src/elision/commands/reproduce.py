"""elision reproduce: a command for each published table."""

import sys
from pathlib import Path

from cyclopts import App

from elision.commands.flags import Shares, Specs

__all__ = ["reproduce"]

reproduce = App(
    name="reproduce", help="Write a published table beside our own numbers."
)


def _folder(name: str, out: Path | None) -> Path:
    """The folder for a reproduction's tables, made if it is not there."""
    folder = out or Path("runs") / f"reproduce-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@reproduce.command
def intergrad(*, out: Path | None = None) -> None:
    """Interleaved gradients on systolic arrays against WS, OS and WS+OS.

    Parameters
    ----------
    out
        Folder for the tables; default: runs/reproduce-intergrad.
    """
    from elision.reproduce.intergrad import write

    folder = _folder("intergrad", out)
    write(folder)
    print(f"tables: {folder}")


@reproduce.command
def sparse_training(
    *,
    network: Specs = ("resnet8", "vgg16"),
    method: Specs = (),
    sparsity: Shares = (0.9, 0.8, 0.95),
    seeds: int = 3,
    data: Path | None = None,
    epochs: int = 5,
    train_images: int = 4000,
    test_images: int = 2000,
    minutes: float | None = None,
    out: Path | None = None,
) -> None:
    """Every sparse-training method on small real images, beside published tables.

    A run takes some ten seconds to a minute, and there are a few hundred; the same
    command goes on where it was stopped, and what is finished is in the tables.

    Parameters
    ----------
    network
        resnet8, vgg16.
    method
        Methods of the study; default: all.
    sparsity
        Sparsities; for ReSprop the reuse, for meProp one minus the share kept.
    seeds
        Runs of each.
    data
        Folder of Fashion-MNIST; default: that of Debian's package dataset-fashion-mnist,
        and where it is not installed, patches of photographs.
    epochs
        Passes over the images.
    train_images
        At most so many are trained on.
    test_images
        At most so many are tested on.
    minutes
        Start no run after so many.
    out
        Folder for runs and tables; default: runs/reproduce-sparse-training.
    """
    from elision.reproduce.sparse_training import study
    from elision.reproduce.sparse_training_runs import METHODS

    folder = _folder("sparse-training", out)
    text = study(
        folder,
        networks=network,
        data=data,
        names=method or tuple(METHODS),
        sparsities=sparsity,
        seeds=seeds,
        seconds=None if minutes is None else 60 * minutes,
        progress=lambda where, result: print(f"{where}: {result}", file=sys.stderr),
        epochs=epochs,
        train_images=train_images,
        test_images=test_images,
    )
    print(f"{text}\ntables: {folder}")


@reproduce.command
def memory(
    *,
    network: Specs = (),
    policy: Specs = (),
    batch: int = 16,
    size: int = 32,
    rounds: int = 5,
    limit_mib: float | None = None,
    workload: str = "digits-cnn",
    seeds: int = 3,
    out: Path | None = None,
) -> None:
    """Saved-activation policies: bytes, measured peak, time, gradient error, accuracy.

    Beside the published figures, with their cautions. Started again with the same
    arguments, it measures only what is missing.

    Parameters
    ----------
    network
        Models to measure, with random weights; default: five of them.
    policy
        Policies, such as 'bits(4)'; default: all kinds, and PyTorch's own offloading.
    batch
        Images in a batch.
    size
        Height and width of the images.
    rounds
        Timed steps per policy; 0 measures the peaks only.
    limit_mib
        Also find the largest batch whose peak stays within so many MiB.
    workload
        What is trained on for the accuracies; 'none' trains nothing.
    seeds
        Trainings per policy.
    out
        Folder for the tables; default: runs/reproduce-memory.
    """
    from elision.report.table import rows_as_text
    from elision.reproduce.memory import (
        NETWORKS,
        POLICIES,
        TRAINED,
        MemoryConfig,
        write,
    )

    config = MemoryConfig(
        networks=network or NETWORKS,
        policies=policy or POLICIES,
        batch=batch,
        size=size,
        rounds=rounds,
        limit_mib=limit_mib,
        workload=None if workload == "none" else workload,
        trained=policy or TRAINED,
        seeds=seeds,
    )
    folder = _folder("memory", out)
    tables = write(config, folder)
    for name in ("networks", "trainings", "published"):
        if tables[name]:
            print(f"\n{name}\n{rows_as_text(tables[name])}")
    print(f"\ntables: {folder}")
