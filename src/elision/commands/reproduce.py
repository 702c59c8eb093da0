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
