"""Log of a run: what all its loggers are told, once each, whatever one of them does."""

import json
import logging
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from elision.common.extras import check_installed
from elision.common.files import write_json
from elision.common.names import lookup
from elision.training.loggers.base import Logger, Told
from elision.training.loggers.mlflow import MLflow
from elision.training.loggers.tensorboard import TensorBoard
from elision.training.loggers.wandb import WandB

__all__ = ["LOGGERS", "LogTo", "RunLog", "check_loggers"]

_log = logging.getLogger("elision")

#: Loggers by name.
LOGGERS: dict[str, type[TensorBoard | WandB | MLflow]] = {
    made.name: made for made in (TensorBoard, WandB, MLflow)
}

#: Folder of what a log remembers of each logger, in the logs of a run.
_KEPT = "logged"

#: Digits of the last step that was logged.
_DIGITS = 20


def check_loggers(specs: Iterable[str]) -> dict[str, str | None]:
    """Targets by logger.

    Args:
        specs: ``NAME`` or ``NAME:TARGET``: a folder for TensorBoard, a project for
            Weights & Biases, the URI of a store for MLflow.

    Raises:
        ValueError: an unknown logger, or one that is named twice.
        ModuleNotFoundError: the extra of one is not installed.

    Example:
        >>> check_loggers(["comet:runs"])
        Traceback (most recent call last):
        ValueError: unknown logger 'comet'; known: tensorboard, wandb, mlflow
    """
    found: dict[str, str | None] = {}
    for spec in specs:
        name, _, target = spec.partition(":")
        made = lookup("logger", name, LOGGERS)
        if name in found:
            raise ValueError(f"log: {name} is given twice")
        check_installed(made.package, made.extra, f"the logger {name}")
        found[name] = target or None
    return found


@dataclass(frozen=True)
class LogTo:
    """Loggers of a training, and the run that they are told of.

    Attributes:
        specs: see :func:`check_loggers`.
        folder: where loggers that were given no other place keep their files.
        name: of the run; see :class:`Told`.
        config: plain values.

    Example:
        >>> LogTo(("tensorboard",), Path("runs/mine/logs"), ("mine", "dense")).name
        ('mine', 'dense')
    """

    specs: tuple[str, ...]
    folder: Path
    name: tuple[str, ...]
    config: Mapping[str, Any] | None = None

    def resumed(self, first_step: int) -> "RunLog":
        """The log of the run, which goes on where an earlier process left it."""
        return RunLog(
            self.specs,
            self.folder,
            name=self.name,
            config=self.config,
            first_step=first_step,
            resume=True,
        )


class RunLog:
    """Log of one training, to be used as a context.

    A logger that raises is told of in one line of the log ``elision``, and left out from
    then on. Random states are after every call as before it, so that a run computes the
    same numbers with loggers as without.

    Args:
        specs: ``NAME`` or ``NAME:TARGET``; see :func:`check_loggers`.
        folder: where loggers that were given no other place keep their files, and where
            it is kept which steps were logged.
        name: of the run, from the general to the particular.
        config: plain values, which stay those of the run.
        first_step: of the values that follow.
        resume: go on with the run of this name in this folder, without the steps that
            were logged; else it begins anew.

    Raises:
        ValueError: an unknown logger, or one that is named twice.
        ModuleNotFoundError: the extra of one is not installed.

    Example:
        >>> with RunLog(["tensorboard"], "logs", config={"lr": 0.1}) as log:  # doctest: +SKIP
        ...     for step, loss in enumerate([0.5, 0.25]):
        ...         log.scalars({"loss": loss}, step)
    """

    def __init__(
        self,
        specs: Iterable[str],
        folder: str | Path,
        *,
        name: str | tuple[str, ...] = "run",
        config: Mapping[str, Any] | None = None,
        first_step: int = 0,
        resume: bool = False,
    ) -> None:
        places = check_loggers(specs)
        told = Told(
            name=(name,) if isinstance(name, str) else name,
            folder=Path(folder),
            config=config or {},
            first_step=first_step,
        )
        self._loggers = [
            _Heard(LOGGERS[name](target), told, resume)
            for name, target in places.items()
        ]

    def __enter__(self) -> Self:
        """The log; what cannot begin is left out."""
        for each in self._loggers:
            each.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End the log of this process, finished unless an error ends it."""
        for each in self._loggers:
            each.close(kind is None)

    def begin(self) -> None:
        """Open the loggers now, as their first value would: some take seconds."""
        for each in self._loggers:
            each.begin()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log values of a step; a step that was logged is left out.

        Args:
            values: by name.
            step: above that of the call before.
        """
        for each in self._loggers:
            each.scalars(values, step)

    def final(self, values: Mapping[str, float], step: int) -> None:
        """Log what the run came to, as far as it is finite and was not logged before."""
        for each in self._loggers:
            each.final(values, step)

    def flush(self) -> None:
        """Have every logger write what it has not written."""
        for each in self._loggers:
            each.flush()


class _Heard:
    """One logger of a log: what it was told already, and its errors.

    The last step is written before the logger is told of it, so that a killed process
    may have left out a step, and the next one doubles none.
    """

    def __init__(
        self, logger: TensorBoard | WandB | MLflow, told: Told, resume: bool
    ) -> None:
        self._name, self._told, self._resume = logger.name, told, resume
        self._target = logger.target
        self._logger: Logger | None = logger
        folder = told.folder.joinpath(_KEPT, *told.name)
        self._facts, self._steps = (
            folder / f"{logger.name}.{kind}" for kind in ("json", "step")
        )
        self._final: dict[str, float] = {}
        self._kept: str | None = None
        self._last = told.first_step - 1
        self._file: int | None = None

    def open(self) -> None:
        """Take up what an earlier process left; the logger begins with its first value."""
        try:
            if self._resume:
                self._remember()
            else:
                self._steps.unlink(missing_ok=True)
        except OSError as error:
            self._fail(error)

    def begin(self) -> None:
        self._call(lambda logger, last: None)

    def _begin(self, logger: Logger) -> int:
        """Open the logger; the file of the last step."""
        self._facts.parent.mkdir(parents=True, exist_ok=True)
        told = replace(self._told, first_step=self._last + 1, kept=self._kept)
        self._kept = logger.open(told)
        self._keep()
        return os.open(self._steps, os.O_RDWR | os.O_CREAT, 0o666)

    def _remember(self) -> None:
        """Take up what an earlier process told this logger, if it is of the same place."""
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            if facts["target"] == self._target:
                self._final, self._kept = dict(facts["final"]), facts["kept"]
                self._last = int(self._steps.read_text(encoding="ascii"))

    def _keep(self) -> None:
        facts = {"target": self._target, "kept": self._kept, "final": self._final}
        write_json(self._facts, facts)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if step <= self._last or not values:
            return

        def send(logger: Logger, last: int) -> None:
            os.pwrite(last, f"{step:0{_DIGITS}d}".encode(), 0)
            logger.scalars(values, step)

        self._call(send)
        self._last = step

    def final(self, values: Mapping[str, float], step: int) -> None:
        new = {
            name: float(value)
            for name, value in values.items()
            if math.isfinite(value) and self._final.get(name) != value
        }
        if not new:
            return
        self._final |= new

        def send(logger: Logger, last: int) -> None:
            del last
            self._keep()
            logger.final(new, step)

        self._call(send)

    def flush(self) -> None:
        if self._file is not None:
            self._call(lambda logger, _: logger.flush())

    def close(self, finished: bool) -> None:
        if self._file is not None:
            self._call(lambda logger, _: logger.close(finished))
            os.close(self._file)
        self._logger = self._file = None

    def _call(self, what: Callable[[Logger, int], object]) -> None:
        """Call the logger, unless it failed before; the first call opens it."""
        if self._logger is None:
            return
        with _random_states_kept():
            try:
                if self._file is None:
                    self._file = self._begin(self._logger)
                what(self._logger, self._file)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._logger = None
        said = " ".join(str(error).split()) or type(error).__name__
        _log.warning(
            "the logger %s failed and is left out, the run goes on: %s",
            self._name,
            said,
        )


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Context after which all generators of the process are as they were before."""
    # NumPy's global generator, too: a logger's package may draw from it.
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002
