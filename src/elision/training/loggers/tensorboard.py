"""TensorBoard: event files, by the writer that torch has for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elision.training.loggers.base import Told

__all__ = ["TensorBoard"]


class TensorBoard:
    """Event files in ``FOLDER/<run>/<recipe>``, which ``tensorboard --logdir FOLDER`` shows.

    Steps that a killed process had logged beyond its last checkpoint are marked invalid
    (``purge_step``), as TensorBoard has it.

    Args:
        target: the folder; None: ``tensorboard`` in the logs of the run.

    Example:
        >>> TensorBoard("runs/board").target
        'runs/board'
    """

    name, package, extra = "tensorboard", "tensorboard", "tensorboard"

    def __init__(self, target: str | None) -> None:
        self.target = target
        self._writer: Any = None

    def open(self, told: Told) -> None:
        """See :class:`~elision.training.loggers.Logger`; TensorBoard finds runs by folder."""
        from torch.utils.tensorboard import SummaryWriter

        place = Path(self.target) if self.target else told.folder / self.name
        folder = place.expanduser().joinpath(*told.name)
        is_new = not folder.exists()
        self._writer = SummaryWriter(str(folder), purge_step=told.first_step)
        if is_new and told.config:
            self._writer.add_text("configuration", _markdown(told.config), 0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def final(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        self.scalars(values, step)

    def flush(self) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        del finished
        self._writer.close()


def _markdown(config: Mapping[str, Any]) -> str:
    """The configuration as a table, which TensorBoard renders."""
    rows = [f"|{name}|{value}|".replace("\n", " ") for name, value in config.items()]
    return "\n".join(["|setting|value|", "|---|---|", *rows])
