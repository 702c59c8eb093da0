"""A disk that fails when told: ``failing.c``, loaded before the C library.

What follows runs in a Python of its own, since a library is loaded first only when a
process begins. Programs that it starts, such as a compiler, meet no failure of this kind.
"""

import ctypes
import enum
import os
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["EVERY_CALL", "Answers", "Calls", "fail"]

_SOURCE = Path(__file__).with_suffix(".c")


class Calls(enum.IntFlag):
    """Kinds of calls of the C library, as ``failing.c`` numbers them."""

    WRITES = 1
    SYNCS = 2
    RENAMES = 4
    MAKES = 8


#: All of them: what fails on a disk that cannot be written.
EVERY_CALL = Calls.WRITES | Calls.SYNCS | Calls.RENAMES | Calls.MAKES


class Answers:
    """A Python of its own with the library loaded, which answers a line with a line.

    It keeps what it has made for one answer for the next, and imports what this process
    can import.

    Args:
        module: reads lines of standard input, and prints a line for each.

    Raises:
        RuntimeError: there is no C compiler, or it cannot build the library.
    """

    def __init__(self, module: str) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        library = Path(self._scratch.name) / "failing.so"
        compiler = os.environ.get("CC", "cc")
        build = [compiler, "-shared", "-fPIC", "-O1", str(_SOURCE), "-o", str(library)]
        done = subprocess.run(
            [*build, "-ldl"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            self._scratch.cleanup()
            raise RuntimeError(f"{compiler} cannot build {_SOURCE}: {done.stderr}")
        environment = {k: v for k, v in os.environ.items() if k != "ELISION_CACHE"}
        environment |= {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
        environment["HOME"] = self._scratch.name  # nothing of the user's is written to
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, question: str) -> str:
        """The line that answers a line.

        Raises:
            RuntimeError: the process has ended; its standard error says why.
        """
        reading, writing = self._process.stdout, self._process.stdin
        if reading is None or writing is None:
            raise RuntimeError("no pipes")
        writing.write(question + "\n")
        writing.flush()
        if not (line := reading.readline()):
            raise RuntimeError(f"no answer; status {self._process.wait()}")
        return line

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._scratch.cleanup()


def fail(
    folder: Path,
    error: int,
    left: int,
    *,
    counted: Calls = Calls.WRITES,
    failing: Calls = Calls.WRITES,
    but: Path | None = None,
    aside: Path | None = None,
) -> None:
    """Have calls below a folder fail from now on, in this process.

    Args:
        folder: an absolute path without links.
        error: number of the system's error.
        left: what may still be done: bytes of writes, or calls.
        counted: calls that count.
        failing: calls that fail afterwards.
        but: a folder below it where nothing fails.
        aside: where the folder is renamed to, instead of a failure; the system fails.
    """
    begin = ctypes.CDLL(None).elision_fail
    begin.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_int] * 3 + [ctypes.c_long]
    texts = [b"" if path is None else os.fsencode(path) for path in (but, aside)]
    begin(os.fsencode(folder), *texts, error, counted, failing, left)
