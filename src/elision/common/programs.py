"""Programs of the system, such as compilers, none of which outlives the work it is for."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

__all__ = ["completed"]

#: Waits until its input ends, as it does when its parent ends, and kills a group.
_WATCH = ("sh", "-c", 'read _; kill -s KILL -- "-$1"', "sh")


def completed(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end; it and all that it starts end with this process, too.

    A compiler starts others, which would go on after a time limit, an interruption or a
    kill that meets the first of them alone.

    Args:
        command: program and arguments.
        timeout_seconds: after which it is killed.
        given: its input.
        environment: variables beside this process's.

    Raises:
        subprocess.TimeoutExpired: it took longer.
        OSError: it cannot be started.

    Example:
        >>> completed(["cat"], timeout_seconds=60, given=b"three products").stdout
        b'three products'
    """
    program = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # its process group is its own
    )
    with program:
        try:
            with _killed_with_this_process(program.pid):
                out, err = program.communicate(given, timeout_seconds)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, program.returncode, out, err)


@contextmanager
def _killed_with_this_process(group: int) -> Iterator[None]:
    """Context in which a process group is killed if this process is."""
    watch = subprocess.Popen(
        [*_WATCH, str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interruption from the terminal does not reach it
    )
    with watch:
        try:
            yield
        finally:
            watch.kill()
