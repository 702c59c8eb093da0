"""elision reproduce: a command for each published table."""

from pathlib import Path

from cyclopts import App

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
