"""Store of trials: a folder in which each trial is trained once, by whoever asks first.

A trial has a folder of its own, named by the digest of its description:

    ``trial.json``         the description
    ``after-<n>.json``     its result after n epochs: the same wherever it is trained
    ``seconds.jsonl``      a line for each epoch that was trained: seconds, which are not
    ``checkpoint...``      where it goes on, until :meth:`Trials.settle`

Files are whole or not there, and a result follows from the description alone. So a search
that is started again asks for what it asked for before, finds what is there, trains the
rest, and ends with the same answer, whatever was killed and however many processes train.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from elision.common.files import append_text, remove_left_partials, write_json
from elision.common.locking import locked
from elision.study.search.trial import Trial, TrialResult
from elision.training.checkpoint import CHECKPOINT, EpochMetrics

__all__ = ["Spent", "Trials"]

_SECONDS = "seconds.jsonl"


@dataclass(frozen=True)
class Spent:
    """Work of a search.

    Attributes:
        trials: that were trained at all.
        full_trainings: their epochs over the epochs of a whole training. A trial trained to
            its end counts one, though it reads the share that is not held out: the passes
            over what is held out are paid by the difference.
        epochs: of all trials.
        steps: of the optimiser, of all trials.
        done_macs: multiply-accumulates of their products that the recipes left to do.
        dense_macs: the same if nothing were left out.
        processor_seconds: of all threads of the processes that trained; epochs that a
            killed process did not finish are missing. None where that was not measured.
        wall_seconds: the same by the clock on the wall, added up over processes.

    Example:
        >>> Spent(trials=2, full_trainings=1.5, epochs=3, steps=60).full_trainings
        1.5
    """

    trials: int = 0
    full_trainings: float = 0.0
    epochs: int = 0
    steps: int = 0
    done_macs: float = 0.0
    dense_macs: float = 0.0
    processor_seconds: float | None = None
    wall_seconds: float | None = None

    def lasting(self) -> "Spent":
        """The work without the seconds, which no two runs share."""
        return replace(self, processor_seconds=None, wall_seconds=None)


@dataclass(frozen=True)
class Trials:
    """A folder of trials.

    Attributes:
        folder: made when the first trial is trained. It may lie in a run folder that is
            claimed by what searches (:func:`elision.study.folder.claimed`).

    Example:
        >>> import tempfile
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=2,
        ...                  train_images=160, model_options={"width": 8})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trials = Trials(Path(folder))
        ...     first = trials.result(Trial(workload=small), epochs=1)
        ...     again = trials.result(Trial(workload=small), epochs=1)  # read
        ...     spent = trials.spent()
        >>> first == again, spent.trials, spent.full_trainings
        (True, 1, 0.5)
    """

    folder: Path

    def result(self, trial: Trial, epochs: int) -> TrialResult:
        """What a trial came to after so many epochs; read, or trained now and written.

        Raises:
            ValueError: ``epochs`` is out of range, the data cannot be divided, or a file
                of the store is damaged.
            OSError: the folder cannot be written.
        """
        if (found := self.known(trial, epochs)) is not None:
            return found
        place = self.place(trial)
        place.mkdir(parents=True, exist_ok=True)
        with locked(place):  # another process may be at the same trial
            if (found := self.known(trial, epochs)) is not None:
                return found
            remove_left_partials(place)
            if not (place / "trial.json").is_file():
                write_json(place / "trial.json", trial.to_dict())
            found = trial.trained(epochs, place, _Clock(place / _SECONDS))
            write_json(_file(place, epochs), found.to_dict())
        return found

    def known(self, trial: Trial, epochs: int) -> TrialResult | None:
        """The result if it is there."""
        path = _file(self.place(trial), epochs)
        return TrialResult.from_dict(_read(path)) if path.is_file() else None

    def submit(
        self, pool: Executor, trial: Trial, epochs: int
    ) -> "Future[TrialResult]":
        """Have a pool find the result; one that is there occupies no process."""
        found = self.known(trial, epochs)
        if found is None:
            threads = torch.get_num_threads()
            folder = Trials(self.folder.resolve())
            return pool.submit(partial(_train, folder, trial, epochs, threads))
        done: Future[TrialResult] = Future()
        done.set_result(found)
        return done

    def place(self, trial: Trial) -> Path:
        """Folder of a trial."""
        return self.folder / trial.key

    def furthest(self) -> Iterator[tuple[Trial, TrialResult]]:
        """The trials that were trained, by key, with the result after most epochs."""
        for path in sorted(self.folder.glob("*/trial.json")):
            results = [
                TrialResult.from_dict(_read(file))
                for file in path.parent.glob("after-*.json")
            ]
            if results:
                trial = Trial.from_dict(_read(path))
                yield trial, max(results, key=lambda result: result.epochs)

    def spent(self) -> Spent:
        """Work of all trials in the folder."""
        found = list(self.furthest())
        rows = [row for trial, _ in found for row in _lines(self.place(trial))]
        return Spent(
            trials=len(found),
            full_trainings=sum(r.epochs / t.epochs for t, r in found),
            epochs=sum(r.epochs for _, r in found),
            steps=sum(r.steps for _, r in found),
            done_macs=sum(r.done_macs for _, r in found),
            dense_macs=sum(r.dense_macs for _, r in found),
            processor_seconds=sum(row["processor_seconds"] for row in rows),
            wall_seconds=sum(row["wall_seconds"] for row in rows),
        )

    def settle(self) -> None:
        """Remove the checkpoints of a search that has ended; its results stay.

        A trial that is asked for more epochs afterwards is trained from the start.
        """
        for path in self.folder.glob(f"*/{CHECKPOINT}"):
            path.unlink()
            for trace in path.parent.glob("trace-*.safetensors"):
                trace.unlink()


class _Clock:
    """Seconds of each epoch, added to a file as the epochs end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = time.process_time(), time.perf_counter()

    def __call__(self, done: int, of: int, metrics: EpochMetrics | None) -> None:
        if metrics is None:
            return
        now = time.process_time(), time.perf_counter()
        row = {
            "epoch": metrics.epoch,
            "processor_seconds": now[0] - self._last[0],
            "wall_seconds": now[1] - self._last[1],
        }
        self._last = now
        append_text(self._path, json.dumps(row) + "\n")


def _train(trials: Trials, trial: Trial, epochs: int, threads: int) -> TrialResult:
    """A result, in a process of its own."""
    torch.set_num_threads(threads)  # the order of sums depends on it
    return trials.result(trial, epochs)


def _file(place: Path, epochs: int) -> Path:
    return place / f"after-{epochs}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable file of trials: {error}") from error


def _lines(place: Path) -> Iterator[dict[str, Any]]:
    """Rows of a trial's seconds; a line that a killed process cut short is none."""
    path = place / _SECONDS
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
