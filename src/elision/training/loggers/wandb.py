"""Weights & Biases: a run each training, offline unless the user has logged in."""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from elision.training.loggers.base import Told

__all__ = ["WandB"]

_SERVER = "https://api.wandb.ai"


class WandB:
    """A run in a project; its recipes are a group.

    ``WANDB_MODE``, ``WANDB_PROJECT`` and all else that wandb reads from its environment
    hold. Where neither a mode nor a key is given, the run is kept offline, and ``wandb
    sync`` sends it later: nobody is asked for a password in a training.

    Args:
        target: the project; None: ``WANDB_PROJECT``, else ``elision``.

    Example:
        >>> WandB("pruning").target
        'pruning'
    """

    name, package, extra = "wandb", "wandb", "wandb"

    def __init__(self, target: str | None) -> None:
        self.target = target
        self._run: Any = None

    def open(self, told: Told) -> str:
        """See :class:`~elision.training.loggers.Logger`; the run's id."""
        import wandb  # pyright: ignore[reportMissingImports]

        told.folder.mkdir(parents=True, exist_ok=True)
        *group, _ = told.name
        self._run = wandb.init(
            project=self.target or os.environ.get("WANDB_PROJECT", "elision"),
            dir=str(told.folder),
            name=" ".join(told.name[1:]) or told.name[0],
            group=group[0] if group else None,
            config=dict(told.config),
            id=told.kept,
            resume="allow",
            mode=_mode(),
            reinit="create_new",
            # The terminal is the command's, and a signal ends the training, not the logger.
            settings=wandb.Settings(console="off", silent=True),
        )
        return self._run.id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        self._run.log(dict(values), step=step)

    def final(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`~elision.training.loggers.Logger`; these are the run's summary."""
        del step
        self._run.summary.update(dict(values))

    def flush(self) -> None:
        """See :class:`~elision.training.loggers.Logger`; wandb writes by itself."""

    def close(self, finished: bool) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        self._run.finish(exit_code=0 if finished else 1)


def _mode() -> Any:
    """The mode to ask for; None leaves it to wandb."""
    if os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY"):
        return None
    host = urlparse(os.environ.get("WANDB_BASE_URL", _SERVER)).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return None if netrc.netrc(path).authenticators(host) else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"
