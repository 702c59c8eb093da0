"""MLflow: a run each training, in a database of the run folder unless another is named."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elision.common.locking import locked
from elision.training.loggers.base import Told

__all__ = ["MLflow"]

#: Most values that MLflow takes at once, and the longest text of a parameter
#: (mlflow.org/docs/latest/rest-api.html, "Log Batch").
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST = 1000, 100, 6000


class MLflow:
    """A run in an experiment, which ``mlflow ui --backend-store-uri URI`` shows.

    ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` hold; the usual experiment is
    ``elision``. Values are sent at the end of every epoch, many at once: MLflow takes
    milliseconds for each call.

    Args:
        target: URI of the store; None: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in
            the logs of the run, which the logs of all its recipes share.

    Example:
        >>> MLflow("sqlite:///all-runs.db").target
        'sqlite:///all-runs.db'
    """

    name, package, extra = "mlflow", "mlflow", "mlflow"

    def __init__(self, target: str | None) -> None:
        self.target = target
        self._client: Any = None
        self._id = ""
        self._waiting: list[tuple[str, float, int, int]] = []

    def open(self, told: Told) -> str:
        """See :class:`~elision.training.loggers.Logger`; the run's id."""
        from mlflow.entities import (  # pyright: ignore[reportMissingImports]
            Param,
            RunTag,
        )
        from mlflow.tracking import (  # pyright: ignore[reportMissingImports]
            MlflowClient,
        )

        told.folder.mkdir(parents=True, exist_ok=True)
        uri = self.target or os.environ.get("MLFLOW_TRACKING_URI")
        uri = uri or f"sqlite:///{(told.folder / 'mlflow.db').resolve()}"
        # Two processes of a study would both make the tables, and one of them fail.
        with _quiet(), locked(told.folder / "mlflow.lock"):
            self._client = MlflowClient(tracking_uri=uri)
            if told.kept:
                self._id = told.kept
                self._client.update_run(self._id, status="RUNNING")
                return self._id
            made = self._client.create_run(
                self._experiment(told.folder),
                run_name=" ".join(told.name[1:]) or told.name[0],
            )
        self._id = made.info.run_id
        settings = [Param(_key(n), _text(v)) for n, v in told.config.items()]
        for i in range(0, len(settings), _MOST_PARAMETERS):
            some = settings[i : i + _MOST_PARAMETERS]
            tags = [RunTag("elision.run", told.name[0])]
            self._client.log_batch(self._id, params=some, tags=tags)
        return self._id

    def _experiment(self, folder: Path) -> str:
        """Id of the experiment, made if it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "elision")
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        place = (folder / "mlflow-artifacts").resolve().as_uri()
        usual = self.target is None and "MLFLOW_TRACKING_URI" not in os.environ
        return self._client.create_experiment(name, place if usual else None)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        now = time.time_ns() // 1_000_000  # MLflow's milliseconds
        self._waiting += [(_key(n), float(v), now, step) for n, v in values.items()]

    def final(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        self.scalars(values, step)

    def flush(self) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        while self._waiting:
            some = [Metric(*each) for each in self._waiting[:_MOST_METRICS]]
            del self._waiting[:_MOST_METRICS]
            self._client.log_batch(self._id, metrics=some)

    def close(self, finished: bool) -> None:
        """See :class:`~elision.training.loggers.Logger`."""
        self.flush()
        status = "FINISHED" if finished else "FAILED"
        self._client.set_terminated(self._id, status=status)


def _key(name: str) -> str:
    """A name in the characters that MLflow allows.

    Example:
        >>> _key("costs/scnn:startup_cycles=5/cycles")
        'costs/scnn:startup_cycles-5/cycles'
    """
    return re.sub(r"[^\w\-. :/]", "-", name, flags=re.ASCII)


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@contextmanager
def _quiet() -> Iterator[None]:
    """Context in which MLflow and alembic say only what is wrong, not each table they make."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
