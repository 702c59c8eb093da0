"""elision reproduce: a command for each published table."""

import sys
from pathlib import Path
from textwrap import fill
from typing import Annotated

from cyclopts import App, Parameter

from elision.cli.flags import Names, Shares, Specs
from elision.cli.progress import Bar

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
def ant(
    *,
    network: Names = (),
    recorded: Annotated[Names, Parameter(negative="--no-recorded")] = (
        "swat",
        "resprop",
    ),
    sparsity: float = 0.9,
    accelerator: str = "ant",
    startup_cycles: int = 5,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """ANT's claims: RCPs anticipated, speed-up and energy over an SCNN-like baseline.

    Parameters
    ----------
    network
        Networks with random operands; default: all five of the abstract.
    recorded
        Recipes of which a short run is trained and its operands recorded.
    sparsity
        Fraction of zeros of every random operand.
    accelerator
        ant:parameter=value,...; the baseline has the same memories and multipliers.
    startup_cycles
        Cycles before the first product of a pair, in the column that has them.
    seed
        Of the random operands and of the runs.
    out
        Folder for the tables; default: runs/reproduce-ant.
    """
    from elision.accelerators import Ant
    from elision.common.specs import build
    from elision.report.table import rows_as_text
    from elision.study.papers.ant import NETWORKS, UNSTATED, as_text_rows, write

    folder = _folder("ant", out)
    with Bar() as bar:
        rows = write(
            folder,
            network or tuple(NETWORKS),
            recorded,
            sparsity=sparsity,
            seed=seed,
            ant=build("accelerator", accelerator, {"ant": Ant}),
            startup_cycles=startup_cycles,
            progress=lambda done, of: bar.step("reproduce ant", done, of),
        )
    print(rows_as_text(as_text_rows(rows, startup_cycles)))
    print(f"\n{fill(UNSTATED, 88)}\n\ntables: {folder}")


@reproduce.command
def scnn(
    *,
    density: Shares = (1.0, 0.7, 0.4, 0.2, 0.1),
    energy: str = "horowitz-45nm",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """SCNN's published points on GoogLeNet, under three sets of rules.

    Parameters
    ----------
    density
        Fractions of non-zeros of weights and activations.
    energy
        Name of an energy table, or a TOML file.
    seed
        Of the random operands.
    out
        Folder for the tables; default: runs/reproduce-scnn.
    """
    from elision.report.table import rows_as_text
    from elision.study.papers.scnn import UNSTATED, as_text_rows, write

    folder = _folder("scnn", out)
    with Bar() as bar:
        rows = write(
            folder,
            density,
            seed=seed,
            energy=energy,
            progress=lambda done, of: bar.step("reproduce scnn", done, of),
        )
    print(rows_as_text(as_text_rows(rows)))
    print(f"\n{fill(UNSTATED, 88)}\n\ntables: {folder}")


@reproduce.command
def intergrad(*, out: Path | None = None) -> None:
    """Interleaved gradients on systolic arrays against WS, OS and WS+OS.

    Parameters
    ----------
    out
        Folder for the tables; default: runs/reproduce-intergrad.
    """
    from elision.report.table import rows_as_text
    from elision.study.papers.intergrad.paper import summaries, write

    folder = _folder("intergrad", out)
    for title, rows in summaries(write(folder)).items():
        print(f"{title}\n\n{rows_as_text(rows)}\n")
    print(f"tables and figures: {folder}")


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
    """The sparse-training methods, N:M excepted, on small images, beside published tables.

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
    from elision.study.papers.sparse_training.paper import study
    from elision.study.papers.sparse_training.runs import METHODS

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
    from elision.study.papers.memory.paper import (
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
