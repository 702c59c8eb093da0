"""Progress of a command, for the person who waits for it."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elision.workloads import Metric

__all__ = ["Bar"]


class Bar:
    """A progress bar on a terminal; elsewhere a line when an epoch ends.

    Args:
        metric: of the task that is trained; only training has one.
    """

    def __init__(self, metric: "Metric | None" = None) -> None:
        self._metric = metric
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bar":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True))
            self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, task: str, done: int, of: int, metrics: Any = None) -> None:
        """Show that ``done`` of the ``of`` steps of a task are done.

        Args:
            task: name of the task; each has a bar.
            done: steps done.
            of: steps in all.
            metrics: of an epoch of training that has just ended, if one has.
        """
        if self._progress is not None:
            if task not in self._tasks:
                self._tasks[task] = self._progress.add_task(task, total=of)
            self._progress.update(self._tasks[task], completed=done)
        elif metrics is not None and self._metric is not None:
            print(
                f"{task}: epoch {metrics.epoch + 1}, loss {metrics.loss:.3f}, "
                f"{self._metric.label} {self._metric.text(metrics.score)}",
                file=sys.stderr,
            )
