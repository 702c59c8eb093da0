"""Decisions by time on this machine, in memory and in one file.

A decision is made once. Later calls and later processes read it, so that a resumed run
continues as it began, and two equal runs on one machine are equal to the last bit.
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elision.common.files import write_json
from elision.common.forking import Lock
from elision.common.locking import locked
from elision.engines.native import library
from elision.native.builder import cache_folder, cpu_fields, private_folder

__all__ = ["TIE", "Decision", "Decisions", "cpu_name", "decisions"]

_log = logging.getLogger("elision")

#: Share by which a candidate must be faster than a simpler one: what the best of three
#: times repeats to on a busy machine (an own choice).
TIE = 0.1


@dataclass(frozen=True)
class Decision:
    """The faster of several ways to compute something.

    Attributes:
        question: unique description of what was decided.
        seconds: best time of each candidate, by name, the simplest first.
        dense: best time of the dense computation, which no candidate may be: it is
            another function. None: not timed.

    Example:
        >>> print(Decision("forward", {"torch": 0.003, "native": 0.001}))
        forward: native (torch 3.00 ms, native 1.00 ms)
        >>> Decision("forward", {"torch": 1.09, "native": 1.0}).winner
        'torch'
    """

    question: str
    seconds: dict[str, float]
    dense: float | None = None

    @property
    def winner(self) -> str:
        """Name of the fastest candidate; of those within :data:`TIE`, the simplest."""
        bound = (1 + TIE) * min(self.seconds.values())
        return next(name for name, time in self.seconds.items() if time <= bound)

    def __str__(self) -> str:
        rows = self.seconds | ({} if self.dense is None else {"dense": self.dense})
        times = ", ".join(f"{n} {1e3 * s:.2f} ms" for n, s in rows.items())
        return f"{self.question}: {self.winner} ({times})"


class Decisions:
    """Decisions by question, of one machine with one set of kernels.

    Args:
        path: the file; None keeps them in memory alone.

    Example:
        >>> Decisions(None).find("forward") is None
        True
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._made: dict[str, Decision] = {}
        self._lock = Lock()
        self._read()

    def find(self, question: str) -> Decision | None:
        """The decision on a question, of this process or of an earlier one; None: none."""
        return self._made.get(question)

    def add(self, decision: Decision) -> Decision:
        """Keep and log a decision; return the one that is valid from now on.

        If another process has decided the same question meanwhile, its decision is.
        """
        with self._lock:
            with self._alone():
                self._read()
                if decision.question in self._made:
                    return self._made[decision.question]
                self._made[decision.question] = decision
                self._write()
            _log.debug("timed once: %s", decision)
            return decision

    def __iter__(self) -> Iterator[Decision]:
        """All decisions, in the order in which they were made."""
        return iter(list(self._made.values()))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Context in which no other process writes the file, if it can be written."""
        with contextlib.ExitStack() as stack:
            if self.path is not None:
                with contextlib.suppress(OSError):  # _write reports it
                    private_folder(self.path.parent)
                    stack.enter_context(locked(self.path.with_suffix(".lock")))
            yield

    def _read(self) -> None:
        """Add the decisions in the file; a damaged file counts as empty."""
        if self.path is None:
            return
        with contextlib.suppress(
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            OverflowError,
            RecursionError,
        ):
            rows: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
            for question, row in rows.items():
                times = {str(n): float(s) for n, s in row["seconds"]}
                dense = None if row["dense"] is None else float(row["dense"])
                known = times.values() if dense is None else (*times.values(), dense)
                if times and all(0 < time < math.inf for time in known):
                    self._made.setdefault(question, Decision(question, times, dense))

    def _write(self) -> None:
        if self.path is None:
            return
        rows = {
            d.question: {"seconds": list(d.seconds.items()), "dense": d.dense}
            for d in self._made.values()
        }
        try:
            write_json(self.path, rows)
        except OSError as error:
            _log.warning(
                "cannot keep decisions in %s (%s); another process may decide "
                "otherwise. Set ELISION_CACHE to a folder that can be written",
                self.path,
                error,
            )
            self.path = None


#: Decisions by what :func:`cache_folder` follows from.
_OPEN: dict[tuple[str | None, ...], Decisions] = {}
_OPENING = Lock()


def decisions() -> Decisions:
    """The decisions of this machine.

    Kept in the folder of the built kernels, in a file named by everything that affects
    times: the CPU, the kernels' sources and variant, and torch's version.
    """
    folder = os.environ.get("ELISION_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if folder in _OPEN:  # asked for at every product of a training step
        return _OPEN[folder]
    with _OPENING:
        try:
            path = cache_folder() / f"decisions-{_digest()}.json"
        except OSError as error:
            _log.warning("decisions are of this process alone: %s", error)
            path = None
        return _OPEN.setdefault(folder, Decisions(path))


@functools.cache
def _digest() -> str:
    """Digest of everything about the machine that affects times."""
    kernels = library.unavailable() or library.path().name
    parts = (
        "seconds and dense",
        kernels,
        torch.__version__,
        platform.machine(),
        cpu_name(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cpu_name() -> str:
    """The CPU's name, family and model, and the number of cores."""
    fields = {"model name": platform.processor()} | cpu_fields()
    version = (fields[k] for k in ("cpu family", "model") if k in fields)
    name = " ".join((fields["model name"], *version))
    return f"{name}, {os.cpu_count()} cores"
