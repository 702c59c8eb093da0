"""The short form of the load campaign, and leaks of each kind that it must find."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from campaigns.cycles import cycled
from campaigns.load import LOAD
from campaigns.resources import MEMORY_BYTES, repeated
from campaigns.steps import trained
from torch import nn

#: Rounds enough for a median of three samples in each third.
ROUNDS = 9


class Thing:
    """What a leak of objects leaves."""


@pytest.fixture
def left() -> Iterator[list[Any]]:
    """What leaks, held until the end of the test."""
    held: list[Any] = []
    yield held
    for one in held:
        if isinstance(one, threading.Event):
            one.set()
        if isinstance(one, int):
            os.close(one)


def thread(held: list[Any]) -> None:
    held.append(threading.Event())
    threading.Thread(target=held[-1].wait, daemon=True).start()


def hook(held: list[Any]) -> None:
    if not held:
        held.append(nn.Linear(1, 1))
    held[0].register_forward_hook(lambda *_: None)


#: Each leaves something behind in every round; the word is in the verdict.
LEAKS: dict[str, Callable[[list[Any]], Any]] = {
    "memory_bytes": lambda held: held.append(os.urandom(MEMORY_BYTES // 2)),
    "descriptors": lambda held: held.append(os.open(os.devnull, os.O_RDONLY)),
    "threads": thread,
    "tensors": lambda held: held.append(torch.zeros(1)),
    "hooks": hook,
    "Thing": lambda held: held.append(Thing()),
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_planted_leak_is_found(what: str, left: list[Any]) -> None:
    row = repeated(lambda number: LEAKS[what](left), ROUNDS)
    assert any(what in line and "grew" in line for line in row.bad), row.bad


def test_work_that_leaves_nothing_behind_is_found_good() -> None:
    row = repeated(lambda number: nn.Linear(3, 3)(torch.zeros(2, 3)).sum(), ROUNDS)
    assert row.bad == []


def test_a_short_training_leaves_nothing_behind() -> None:
    row = trained("native", count=6, seed=0)
    assert row.counts == {"steps": 60}
    assert row.bad == []


@pytest.mark.parametrize("name", ["savers", "recorders", "checkpoints"])
def test_a_few_cycles_leave_nothing_behind(name: str) -> None:
    assert cycled(name, count=18, seed=0).bad == []


def test_a_cycle_that_leaves_an_attribute_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import elision

    restore = elision.restore

    def forgetful(model: nn.Module) -> nn.Module:
        restore(model).left = True  # pyright: ignore[reportArgumentType]
        return model

    monkeypatch.setattr(elision, "restore", forgetful)
    with pytest.raises(AssertionError, match="restore leaves"):
        cycled("elide and restore", count=2, seed=0)


def test_every_kind_runs_apart() -> None:
    row = LOAD.kinds["trace files"](2, 0)
    assert row.counts == {"rounds": 2}
