"""Kills: work that is stopped at random moments and started again.

A job runs in a forked process, is sent a signal at a moment drawn over the time it needs,
again and again, and then runs to its end. Its folder must then equal, byte for byte, the
folder of a job that nobody stopped; files that hold times, and no others, are left out and
named. What a killed job has begun, such as a compiler, ends
with it.
"""

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from campaigns.campaign import Campaign, Row
from campaigns.children import STOPS, Child, ended, started, still_at_work
from campaigns.jobs import JOBS, Job
from campaigns.trial import warmed

__all__ = ["KILLS", "Stopped", "Whole", "stopped", "whole"]

#: Signals that stop a job: the system's, a scheduler's, a person's.
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

#: Attempts in a row that are stopped before one may end.
_IN_A_ROW = 4


@dataclass(frozen=True)
class Whole:
    """What a job comes to if nobody stops it.

    Attributes:
        job: the work.
        files: content by path.
        times: files that hold times; one whose process was killed before it wrote them
            may not be there.
        seconds: that it took.
    """

    job: Job
    files: dict[str, bytes]
    times: tuple[str, ...]
    seconds: float

    def differing(self, folder: Path) -> list[str]:
        """Paths that are not in a folder with the same content, times excepted."""
        found = self.job.read(folder)
        return sorted(
            name
            for name in self.files.keys() | found.keys()
            if name not in self.times and self.files.get(name) != found.get(name)
        )


def whole(job: Job, folder: Path) -> Whole:
    """Run a job twice, and once before to have all loaded and compiled.

    Args:
        job: the work.
        folder: for a folder of each of its runs.

    Raises:
        RuntimeError: a run fails, or the two differ in more than times.
    """
    warmed(lambda: job.run(folder / "warm"))
    began = time.monotonic()
    _run(job, folder / "whole")
    seconds = time.monotonic() - began
    _run(job, folder / "again")
    files = job.read(folder / "whole")
    times = tuple(
        name
        for name in files
        if any(fnmatchcase(name, pattern) for pattern in job.times)
    )
    found = Whole(job, files, times, seconds)
    if differs := found.differing(folder / "again"):
        raise RuntimeError(f"{job.name}: two runs differ in {', '.join(differs)}")
    return found


def _run(job: Job, place: Path) -> None:
    child = started(job, place)
    if ended(child):
        raise RuntimeError(f"{job.name} fails: {child.lines()[-3:]}")


@dataclass
class Stopped:
    """What the kills of one job came to.

    Attributes:
        kills: sent while the job was at work, by signal.
        ended: jobs that ended with the bytes of one that nobody stopped.
        bad: what did not hold, in words.
        times: files that hold times.
        silent: jobs that were asked to stop before their command began, or that are
            functions of the library, which say nothing.
    """

    kills: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    silent: int = 0
    bad: list[str] = field(default_factory=list)
    times: tuple[str, ...] = ()


def stopped(job: Job, kills: int, seed: int = 0) -> Stopped:
    """Stop a job until so many kills have met it at work.

    Args:
        job: the work.
        kills: their number, of all signals together.
        seed: of the moments.
    """
    drawn, found = random.Random(f"{seed}/{job.name}"), Stopped()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        expected = whole(job, folder)
        found.times = expected.times
        place = folder / "part"
        while found.kills.total() < kills:
            shutil.rmtree(place, ignore_errors=True)
            _round(job, place, expected.seconds, drawn, found)
            if differs := expected.differing(place):
                found.bad.append(f"other bytes: {', '.join(differs)}")
            else:
                found.ended += 1
    return found


def _round(
    job: Job, place: Path, seconds: float, drawn: random.Random, found: Stopped
) -> None:
    """Stop a job several times, then let it end."""
    for _ in range(_IN_A_ROW):
        number = drawn.choice(SIGNALS)
        child = started(job, place)
        time.sleep(drawn.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.number, number)
        status = ended(child)
        if status == 0:  # it was done before
            continue
        found.kills[number.name] += 1
        _judge(child, number, status, place, found)
    child = started(job, place)
    if ended(child):
        found.bad.append(f"it does not continue: {child.lines()[-3:]}")


def _judge(
    child: Child, number: signal.Signals, status: int, place: Path, found: Stopped
) -> None:
    """Note what a stopped job should not have said, or left at work."""
    if number in STOPS and child.was_silent(number, status):
        found.silent += 1
    elif number in STOPS and not child.was_clear(number):
        found.bad.append(f"{number.name}, status {status}: {child.lines()[-3:]}")
    if left := still_at_work(place):
        found.bad.append(f"{number.name}: still at work: {left}")


def _row(job: Job, kills: int, seed: int) -> Row:
    found = stopped(job, kills, seed)
    counts = dict(found.kills) | {"ended": found.ended}
    facts = {"times": list(found.times), "silent": found.silent}
    return Row(counts, found.bad, facts)


KILLS = Campaign("kills", "kills", 16, {job.name: partial(_row, job) for job in JOBS})
