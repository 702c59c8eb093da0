"""Kills: work that is stopped at random moments and started again.

A job runs in a forked process, is sent a signal at a moment drawn over the time it needs,
again and again, and then runs to its end. Its folder must then equal, byte for byte, the
folder of a job that nobody stopped; files that differ between two such jobs, since they
hold times, are left out and named.
"""

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from campaigns.campaign import Campaign, Row
from campaigns.trial import warmed

__all__ = ["KILLS", "Job", "Stopped", "stopped"]

#: Signals that stop a job: the system's, a scheduler's, a person's.
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

#: Attempts in a row that are stopped before one may end.
_IN_A_ROW = 4


@dataclass(frozen=True)
class Job:
    """Work that continues where it was stopped.

    Attributes:
        name: for tables.
        run: the work, in a folder.
    """

    name: str
    run: Callable[[Path], Any]


@dataclass
class Stopped:
    """What the kills of one job came to.

    Attributes:
        kills: sent while the job was at work, by signal.
        ended: jobs that ended with the bytes of one that nobody stopped.
        bad: what did not hold, in words.
        times: files that hold times.
    """

    kills: Counter[str] = field(default_factory=Counter)
    ended: int = 0
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
        warmed(lambda: job.run(folder / "warm"))
        began = time.monotonic()
        _expect(_started(job, folder / "whole"), folder, "the first run")
        seconds = time.monotonic() - began
        _expect(_started(job, folder / "again"), folder, "the second run")
        whole, again = _tree(folder / "whole"), _tree(folder / "again")
        if whole.keys() != again.keys():
            raise RuntimeError(f"{job.name}: two runs write other files")
        found.times = tuple(n for n, content in whole.items() if again[n] != content)
        while found.kills.total() < kills:
            place = folder / "part"
            shutil.rmtree(place, ignore_errors=True)
            _round(job, place, seconds, drawn, found)
            part = _tree(place)
            differs = sorted(
                name
                for name in whole.keys() | part.keys()
                if name not in found.times and whole.get(name) != part.get(name)
            )
            if differs:
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
        child, said = _started(job, place)
        time.sleep(drawn.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:  # it was done before
            continue
        found.kills[number.name] += 1
        text = said.read_text("utf-8") if said.exists() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        if number == signal.SIGINT and not _is_clear(lines, status):
            found.bad.append(f"SIGINT, status {status}: {text[-400:]!r}")
    child, said = _started(job, place)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        found.bad.append(f"it does not continue: {said.read_text('utf-8')[-400:]!r}")


def _is_clear(lines: list[str], status: int) -> bool:
    """Whether an interruption is told in one line, the last, without a traceback."""
    if status == -signal.SIGINT and not lines:
        return True  # before the command began
    told = [line for line in lines if line.startswith("elision: interrupted")]
    return len(told) == 1 and not any("Traceback" in line for line in lines)


def _started(job: Job, place: Path) -> tuple[int, Path]:
    """A child at work, and the file of its standard error."""
    said = place.with_name(f"{place.name}.err")
    said.unlink(missing_ok=True)
    child = os.fork()
    if child:
        return child, said
    status = 1
    try:
        with said.open("w", encoding="utf-8", buffering=1) as err:
            os.dup2(err.fileno(), 2)
            sys.stderr = err
            with contextlib.redirect_stdout(io.StringIO()):
                status = _status(job, place)
    finally:
        os._exit(status)


def _status(job: Job, place: Path) -> int:
    try:
        job.run(place)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _expect(started: tuple[int, Path], folder: Path, what: str) -> None:
    child, said = started
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"{what} fails: {said.read_text('utf-8')[-400:]}")


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _command(*words: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        from elision.cli.main import main

        folder.parent.mkdir(exist_ok=True)
        main([word.replace("{}", str(folder)) for word in words])

    return run


_SMALL = """[workload]
name = "small"
dataset = "digits"
model = "mlp"
model_options = {width = 16}
epochs = 3
train_images = 256
test_images = 64
"""


def _study(*words: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        workload = folder.parent / "small.toml"
        workload.write_text(_SMALL, encoding="utf-8")
        _command(*words, "--workload", str(workload), "--out", "{}")(folder)

    return run


def _kernels(folder: Path) -> None:
    """A small library built in a cache of its own."""
    folder.mkdir(exist_ok=True, mode=0o700)
    os.environ["ELISION_CACHE"] = str(folder)
    from elision.native.builder import build_text

    build_text('extern "C" int elision_one() { return 1; }\n')
    for lock in folder.glob("*.lock"):  # made once, empty
        lock.unlink()


def _choices(folder: Path) -> None:
    from elision.engines.decision import Decision, Decisions

    folder.mkdir(exist_ok=True)
    kept = Decisions(folder / "decisions.json")
    for number in range(40):
        kept.add(Decision(f"forward of layer {number}", {"torch": 0.003}))
    for lock in folder.glob("*.lock"):
        lock.unlink()


def _row(job: Job, kills: int, seed: int) -> Row:
    found = stopped(job, kills, seed)
    counts = dict(found.kills) | {"ended": found.ended}
    return Row(counts, found.bad, {"times": list(found.times)})


_JOBS = (
    Job(
        "study",
        _study(
            *("study", "--recipe", "dense", "swat", "rigl", "--seeds", "2"),
            *("--accelerator", "dense", "ant", "--memory", "bits(4)"),
        ),
    ),
    Job("train", _study("train", "w-resprop", "--engine", "torch")),
    Job(
        "sweep",
        _command(
            *("simulate", "--model", "cnn", "--input", "16", "--sparsity"),
            *("0.5", "0.8", "0.9", "--accelerator", "dense", "scnn", "ant"),
            *("--out", "{}/rows.csv"),
        ),
    ),
    Job("kernel build", _kernels),
    Job("choice file", _choices),
)

KILLS = Campaign("kills", "kills", 45, {job.name: partial(_row, job) for job in _JOBS})
