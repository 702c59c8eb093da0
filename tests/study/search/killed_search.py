"""A small search in a process of its own that is killed, and started again, until done.

As ``tests/study/killed_study.py``: attempts are forks of a process that has imported
everything and computed nothing.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from elision.common import files
from elision.study.search.run import TrainedSearch
from elision.study.search.space import Choice, Knob, Space
from elision.study.search.template import Template
from elision.workloads import Workload

SEARCH = TrainedSearch(
    template=Template(
        workload=Workload(
            name="small",
            dataset="digits",
            model="cnn",
            epochs=4,
            train_images=240,
            batch_size=32,
            model_options={"width": 4},
        ),
    ),
    space=Space(
        (
            Choice("recipe", ("dense", "swat:sparsity=0.8", "rigl:sparsity=0.5")),
            Knob("lr", 0.003, 0.3, log=True),
        )
    ),
    method="asha",
    count=6,
    eta=2,
    slots=2,
)

#: The n-th file that an attempt writes, at which it is killed with the file half-written.
AT_WRITES, AT_RANDOM = (1, 2, 4, 3, 7), 4


def attempt(folder: Path, at_write: int | None = None) -> int:
    """Start the search in a child process. Returns the child's id."""
    child = os.fork()
    if child:
        return child
    if at_write is not None:
        kill_at_write(at_write)
    try:
        SEARCH.run(folder)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def kill_at_write(number: int) -> None:
    """Have this process killed when it is half through the n-th file it writes."""
    counter, rename = itertools.count(1), os.replace

    def replace(source: Path, target: Path) -> None:
        if next(counter) == number:
            content = source.read_bytes()
            source.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    files.os.replace = replace  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]


def ended(child: int) -> int:
    """Wait for a child; its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: str) -> None:
    whole, part = Path(folder, "whole"), Path(folder, "part")
    began = time.monotonic()
    statuses = [ended(attempt(whole))]
    seconds = time.monotonic() - began
    statuses += [ended(attempt(part, at_write)) for at_write in AT_WRITES]
    moments = random.Random(0)
    for _ in range(AT_RANDOM):
        child = attempt(part)
        time.sleep(moments.uniform(0, seconds / 2))
        os.kill(child, signal.SIGKILL)
        statuses.append(ended(child))
    statuses.append(ended(attempt(part)))
    print(json.dumps(statuses))


if __name__ == "__main__":
    main(*sys.argv[1:])
