"""Work that is killed at random moments, and started again, until it is done.

A program of its own imports everything once and computes nothing, so that it holds no
threads; each attempt is a fork of it.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from processes import environment

from elision.common import files
from elision.common.files import is_partial


def killed_and_whole(
    work: Callable[[Path], Any],
    folder: str,
    *,
    before: Sequence[int] = (),
    at_random: int,
    after: Sequence[int] = (),
) -> None:
    """Do the work whole, then in another folder again and again; print the statuses.

    Args:
        work: in a folder.
        folder: in which ``whole`` and ``part`` are made.
        before: the n-th files at which the first attempts are killed, half-written.
        at_random: attempts that are killed at random moments.
        after: as ``before``, for the attempts after those.
    """
    whole, part = Path(folder, "whole"), Path(folder, "part")
    began = time.monotonic()
    statuses = [_ended(_attempt(work, whole))]
    seconds = time.monotonic() - began
    statuses += [_ended(_attempt(work, part, at_write)) for at_write in before]
    moments = random.Random(0)
    for _ in range(at_random):
        child = _attempt(work, part)
        time.sleep(moments.uniform(0, seconds / 2))
        os.kill(child, signal.SIGKILL)
        statuses.append(_ended(child))
    statuses += [_ended(_attempt(work, part, at_write)) for at_write in after]
    statuses.append(_ended(_attempt(work, part)))
    print(json.dumps(statuses))


def same_files_after_kills(script: Path, folder: Path, least: int) -> set[Path]:
    """Run such a program; the files that its whole and its killed work both have.

    Args:
        script: calls :func:`killed_and_whole`.
        folder: its argument.
        least: attempts that must have been killed.
    """
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    first, *killed, last = json.loads(done.stdout)
    assert first == last == 0, done.stderr
    assert killed.count(-9) >= least
    assert set(killed) <= {-9, 0}, done.stderr
    whole, part = folder / "whole", folder / "part"
    names = {p.relative_to(whole) for p in whole.rglob("*") if p.is_file()}
    assert names == {p.relative_to(part) for p in part.rglob("*") if p.is_file()}
    assert not any(is_partial(name) for name in names)
    return names


def _attempt(
    work: Callable[[Path], Any], folder: Path, at_write: int | None = None
) -> int:
    """Start the work in a child process. Returns the child's id."""
    child = os.fork()
    if child:
        return child
    if at_write is not None:
        _kill_at_write(at_write)
    try:
        work(folder)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def _kill_at_write(number: int) -> None:
    """Have this process killed when it is half through the n-th file it writes."""
    counter, rename = itertools.count(1), os.replace

    def replace(source: Path, target: Path) -> None:
        if next(counter) == number:
            content = source.read_bytes()
            source.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    files.os.replace = replace  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]


def _ended(child: int) -> int:
    """Wait for a child; its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
