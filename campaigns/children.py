"""Jobs in forked processes, which find loaded and compiled what they need."""

import contextlib
import io
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from campaigns.jobs import Job
from elision.cli.signals import Ended

__all__ = ["STOPS", "Child", "ended", "started", "still_at_work"]

#: Signals that stop a job, and are told: a scheduler's, a person's.
STOPS = {signal.SIGTERM, signal.SIGINT}

#: Variable by which the programs that a job has begun are known.
_MARK = "ELISION_CAMPAIGN_FOLDER"

#: What Python prints of an exception that nobody can handle, to its last line.
_IGNORED = re.compile(r"Exception ignored in.*\nTraceback.*\n(?: .*\n)*.*\n")

#: Time in which these must end after their job (an own choice, for a busy machine).
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Child:
    """A process at work.

    Attributes:
        number: of the process.
        job: its work.
        errors: the file of its standard error.
    """

    number: int
    job: Job
    errors: Path

    def lines(self) -> list[str]:
        """What it has said."""
        text = self.errors.read_text("utf-8") if self.errors.exists() else ""
        return [line for line in text.splitlines() if line.strip()]

    def was_silent(self, stop: signal.Signals, status: int) -> bool:
        """Whether it was stopped before its command began, or is no command.

        What Python prints where another library ends an object that the stop left half
        made, as of Numba's compiler, is nothing that the job says.
        """
        said = _IGNORED.sub("", "".join(f"{line}\n" for line in self.lines()))
        return status in (-stop, 128 + stop) and not said

    def was_clear(self, stop: signal.Signals) -> bool:
        """Whether it told in one line that it was stopped, and how to go on."""
        lines = self.lines()
        begins = {
            signal.SIGINT: "elision: interrupted; the same command continues",
            signal.SIGTERM: "elision: ended by SIGTERM; the same command continues",
        }
        told = [line for line in lines if line == begins[stop]]
        return len(told) == 1 and not any("Traceback" in line for line in lines)


def started(job: Job, place: Path, name: str = "") -> Child:
    """A child at work in a folder.

    Args:
        job: its work.
        place: the folder.
        name: of the child, if there are several in the folder.
    """
    errors = place.with_name(f"{place.name}{name}.err")
    errors.unlink(missing_ok=True)
    # A signal that meets the child before it is at work waits until it is.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    number = os.fork()
    if number:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        return Child(number, job, errors)
    status = 1
    try:
        try:
            with errors.open("w", encoding="utf-8", buffering=1) as err:
                os.dup2(err.fileno(), 2)
                sys.stderr = err
                status = _status(job, place)
        finally:  # no second exception leaves this function
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    finally:
        os._exit(status)


def _status(job: Job, place: Path) -> int:
    """Status of a job; that of a function of the library as shells would have it."""
    os.environ[_MARK] = str(place)
    # A shell has what it starts in the background ignore interruptions.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        with contextlib.redirect_stdout(io.StringIO()):
            job.run(place)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Ended:
        return 128 + signal.SIGTERM
    return 0


def ended(child: Child) -> int:
    """Its exit status, once it has ended; that of a killed one is below zero."""
    return os.waitstatus_to_exitcode(os.waitpid(child.number, 0)[1])


def still_at_work(place: Path) -> list[str]:
    """Programs of a job in a folder, such as compilers, that have not ended with it."""
    ends = time.monotonic() + _END_SECONDS
    while (found := _marked(place)) and time.monotonic() < ends:
        time.sleep(0.05)
    return found


def _marked(place: Path) -> list[str]:
    mark = f"{_MARK}={place}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another's
            if mark in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(command.decode(errors="replace"))
    return found
