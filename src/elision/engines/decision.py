"""What has been decided on this machine, in memory and in one file.

A decision by time is made once. From then on it is read, by this process and by those
that come after, so that a run that was interrupted goes on as it began, and two equal
runs on one machine are equal to the last bit.
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
    """Who computes something, and why.

    Attributes:
        question: what was decided, in words that tell it from everything else.
        seconds: best time of each candidate, by name.
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
        path: the file; None to forget them with the process.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._made: dict[str, Decision] = {}
        self._lock = threading.RLock()
        self._read()

    def find(self, question: str) -> Decision | None:
        """What was decided, by this process or by one before it."""
        return self._made.get(question)

    def add(self, decision: Decision) -> Decision:
        """Take a decision, say so, and return the one that stands.

        That is another process's if it was faster to decide the same question.
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
        """While no other process writes the file; where it can be written."""
        if self.path is None:
            yield
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.with_suffix(".lock").open("w")
        except OSError:  # told when writing fails
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> None:
        """Take what the file holds; one that is damaged holds nothing."""
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

    Kept in the folder of the built kernels, in a file named by all that times depend
    on: the CPU, the kernels' sources and variant, and torch's version.
    """
    path = cache_folder() / f"decisions-{_digest()}.json"
    with _OPENING:
        if path not in _OPEN:
            _OPEN[path] = Decisions(path)
        return _OPEN[path]


@functools.cache
def _digest() -> str:
    """Names the machine, as far as times depend on it."""
    kernels = library.unavailable() or library.path().name
    parts = (kernels, torch.__version__, platform.machine(), cpu_name())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cpu_name() -> str:
    """The CPU's name, family and model, and the number of cores."""
    fields = {"model name": platform.processor()} | cpu_fields()
    version = (fields[k] for k in ("cpu family", "model") if k in fields)
    name = " ".join((fields["model name"], *version))
    return f"{name}, {os.cpu_count()} cores"
