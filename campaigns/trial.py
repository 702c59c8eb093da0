"""One trial: a call in a process of its own, with a limit of time and of memory.

The process is forked from one that has loaded the library, so a trial costs
milliseconds. What it printed, and how it ended, is its outcome.
"""

import contextlib
import io
import os
import pickle
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["HANG_SECONDS", "MEMORY_BYTES", "Outcome", "tried", "warmed"]

#: Longest trial, of processor time, for other programs may slow it down; one that is at
#: work after it hangs.
HANG_SECONDS = 10

#: Longest wait for a trial that takes no processor time.
_WAIT_SECONDS = 120

#: Memory that a trial may take beyond what its process began with.
MEMORY_BYTES = 2 * 2**30

#: Longest refusal, in characters; the command line cuts longer ones.
_LINE = 2100

#: What a system says that has no more memory to give.
_ASKED = re.compile("(not enough|out of) memory|MemoryError|allocate", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        kind: ``"accepted"``, ``"refused"`` (one clear line), ``"traceback"``, ``"hang"``,
            ``"memory"``, ``"killed"`` (by a signal) or ``"unclear"`` (refused in several
            lines, or none).
        said: what it printed, or the reason.
        result: of an accepted call, as text.
    """

    kind: str
    said: str = ""
    result: str = ""

    @property
    def is_good(self) -> bool:
        """Whether a user could live with it."""
        return self.kind in ("accepted", "refused")


def tried(call: Callable[[], Any]) -> Outcome:
    """Outcome of a call in a forked process.

    Args:
        call: may print, raise, exit, hang and take memory. ValueError, RuntimeError and
            OSError are refusals, as the command line makes them.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            outcome = _inside(call)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(outcome, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    return _awaited(child, reading)


def warmed(call: Callable[[], Any]) -> None:
    """Run a call here, so that every later child finds what it loads and compiles."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        contextlib.suppress(SystemExit, Exception),
    ):
        call()


def _awaited(child: int, reading: int) -> Outcome:
    """What a child says before its time is over."""
    ends = time.monotonic() + _WAIT_SECONDS
    os.set_blocking(reading, False)
    content = b""
    while time.monotonic() < ends:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(reading, 2**16):
                content += part
            break  # the pipe was closed: the child is done
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if content:
        return pickle.loads(content)  # of our own child
    number = os.waitstatus_to_exitcode(status)
    if time.monotonic() >= ends or number == -signal.SIGXCPU:
        return Outcome("hang", f"at work after {HANG_SECONDS} s")
    return Outcome("killed", f"ended with status {number} and said nothing")


def _inside(call: Callable[[], Any]) -> Outcome:
    """The outcome, in the child."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (HANG_SECONDS, HANG_SECONDS + 1))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            found = call()
        except SystemExit as end:
            if end.code in (0, None):
                return Outcome("accepted", err.getvalue(), out.getvalue())
            return _refusal(err.getvalue())
        except MemoryError:
            return Outcome("memory", "MemoryError")
        except (ValueError, RuntimeError, OSError) as error:
            if _ASKED.search(str(error)):
                return Outcome("memory", str(error)[:_LINE])
            if isinstance(error, RecursionError):
                return Outcome("traceback", traceback.format_exc())
            return _refusal(_as_told(error))
        except BaseException:
            return Outcome("traceback", traceback.format_exc())
    return Outcome("accepted", err.getvalue(), out.getvalue() + str(found))


def _as_told(error: Exception) -> str:
    """The message as the command line would print it."""
    from elision.common.printable import printable

    return printable(str(error), keep="\n\t")[:_LINE]


def _refusal(said: str) -> Outcome:
    lines = [line for line in said.splitlines() if line.strip()]
    if "Traceback" in said:
        return Outcome("traceback", said)
    if _ASKED.search(said):
        return Outcome("memory", said)
    clear = len(lines) == 1 and len(lines[0]) <= _LINE and lines[0].isprintable()
    return Outcome("refused" if clear else "unclear", said)
