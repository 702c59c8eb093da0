"""A short form of the campaign of disks: nothing lost, nothing half-written, one line."""

import importlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

#: Writers that take a blink: rows, tensors, trainings in a run folder, a cache.
WRITERS = ("sweep", "trace", "search", "choice file", "map")

#: Faults that need no right, and make no difference where a disk cannot be mounted.
KINDS = (
    *("filling", "quota", "error", "turned read-only", "vanished"),
    *("links", "other kind", "open files"),
)


@pytest.fixture(scope="module")
def answers() -> Iterator[Any]:
    """A Python whose disk can fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])
        failing = importlib.import_module("campaigns.failing")
        try:
            found = failing.Answers("campaigns.disks")
        except (OSError, RuntimeError) as error:  # no C compiler
            pytest.skip(str(error))
        with closing(found):
            yield found


@pytest.mark.parametrize("kind", KINDS)
def test_work_on_a_bad_disk_loses_nothing_and_says_why(answers: Any, kind: str) -> None:
    disks = importlib.import_module("campaigns.disks")
    fault = next(each for each in disks.FAULTS if each.name == kind)
    row = disks.asked(answers, fault, 3, 0, WRITERS)
    assert row.bad == []
    assert sum(row.counts.values()) == 3
