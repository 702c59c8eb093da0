"""Decisions by time on this machine, in memory and in one file.

A decision is made once. Later calls and later processes read it, so that a resumed run
continues as it began, and two equal runs on one machine are equal to the last bit.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from elision.common.files import write_json
from elision.engines.native import library
from elision.engines.native.builder import cache_folder, cpu_fields

__all__ = ["Decision", "Decisions", "cpu_name", "decisions"]


@dataclass(frozen=True)
class Decision:
    """The faster of several ways to compute something.

    Attributes:
        question: unique description of what was decided.
        seconds: best time of each candidate, by name.

    Example:
        >>> print(Decision("forward", {"native": 0.001, "torch": 0.003}))
        forward: native (native 1.00 ms, torch 3.00 ms)
    """

    question: str
    seconds: dict[str, float]

    @property
    def winner(self) -> str:
        """Name of the fastest candidate."""
        return min(self.seconds, key=self.seconds.__getitem__)

    def __str__(self) -> str:
        times = ", ".join(f"{n} {1e3 * s:.2f} ms" for n, s in self.seconds.items())
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
        self._lock = threading.RLock()
        self._read()

    def find(self, question: str) -> Decision | None:
        """The decision on a question, of this process or of an earlier one; None: none."""
        return self._made.get(question)

    def add(self, decision: Decision) -> Decision:
        """Keep and print a decision; return the one that is valid from now on.

        If another process has decided the same question meanwhile, its decision is.
        """
        with self._lock:
            with self._alone():
                self._read()
                if decision.question in self._made:
                    return self._made[decision.question]
                self._made[decision.question] = decision
                self._write()
            print(f"elision: timed once: {decision}", file=sys.stderr)
            return decision

    def __iter__(self) -> Iterator[Decision]:
        """All decisions, in the order in which they were made."""
        return iter(list(self._made.values()))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Context in which no other process writes the file, if it can be written."""
        if self.path is None:
            yield
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.with_suffix(".lock").open("w")
        except OSError:  # _write reports it
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> None:
        """Add the decisions in the file; a damaged file counts as empty."""
        if self.path is None:
            return
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            rows: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
            for question, seconds in rows.items():
                times = {str(n): float(s) for n, s in seconds.items()}
                if times:
                    self._made.setdefault(question, Decision(question, times))

    def _write(self) -> None:
        if self.path is None:
            return
        rows = {d.question: asdict(d)["seconds"] for d in self._made.values()}
        try:
            write_json(self.path, rows)
        except OSError as error:
            print(
                f"elision: cannot keep decisions in {self.path} ({error}); another "
                "process may decide otherwise. Set ELISION_CACHE to a folder that can "
                "be written",
                file=sys.stderr,
            )
            self.path = None


_OPEN: dict[Path, Decisions] = {}
_OPENING = threading.Lock()


def decisions() -> Decisions:
    """The decisions of this machine.

    Kept in the folder of the built kernels, in a file named by everything that affects
    times: the CPU, the kernels' sources and variant, and torch's version.
    """
    path = cache_folder() / f"decisions-{_digest()}.json"
    with _OPENING:
        if path not in _OPEN:
            _OPEN[path] = Decisions(path)
        return _OPEN[path]


@functools.cache
def _digest() -> str:
    """Digest of everything about the machine that affects times."""
    kernels = library.unavailable() or library.path().name
    parts = (kernels, torch.__version__, platform.machine(), cpu_name())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cpu_name() -> str:
    """The CPU's name, family and model, and the number of cores."""
    fields = {"model name": platform.processor()} | cpu_fields()
    version = (fields[k] for k in ("cpu family", "model") if k in fields)
    name = " ".join((fields["model name"], *version))
    return f"{name}, {os.cpu_count()} cores"
