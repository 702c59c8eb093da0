"""Programs of the system, none of which outlives the work it is for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elision.common.programs import completed

#: A program that starts another, each for ten minutes; its own number is in a file.
BEGINS_ANOTHER = "sleep 600 & echo $! > {0}.tmp; mv {0}.tmp {0}; sleep 600"


def _waited(until: Callable[[], bool]) -> None:
    """Wait for what takes milliseconds; a minute is a failure."""
    ends = time.monotonic() + 60
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.01)


def _has_ended(number: int) -> bool:
    """Whether a process is no more, or waits to be counted by a parent that never does."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_program_begins_ends_with_the_process_that_ran_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    noted = tmp_path / "number"
    script = (
        "import signal\n"
        # What a shell starts in the background is deaf to interruptions.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from elision.common.programs import completed\n"
        f"completed(['sh', '-c', {BEGINS_ANOTHER.format(noted)!r}], timeout_seconds=600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL
    ) as ours:
        _waited(noted.exists)
        os.kill(ours.pid, number)
    grandchild = int(noted.read_text())
    _waited(lambda: _has_ended(grandchild))


def test_what_a_program_begins_ends_at_the_time_limit(tmp_path: Path) -> None:
    noted = tmp_path / "number"
    with pytest.raises(subprocess.TimeoutExpired):
        completed(["sh", "-c", BEGINS_ANOTHER.format(noted)], timeout_seconds=2)
    grandchild = int(noted.read_text())
    _waited(lambda: _has_ended(grandchild))


def test_output_status_and_variables_are_the_programs() -> None:
    done = completed(
        ["sh", "-c", "cat; echo $ONE >&2; exit 3"],
        timeout_seconds=60,
        given=b"in",
        environment={"ONE": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"1\n")
