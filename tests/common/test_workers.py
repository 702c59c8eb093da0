"""Processes of a pool end with what they are for."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

import torch

from elision.common.workers import processes


def _failing(
    error: type[BaseException], call: Callable[..., object], *given: object
) -> Future[Any]:
    """The future of a call that is under way when an error is raised here."""
    futures: list[Future[Any]] = []
    with suppress(error), processes(1) as pool:
        futures.append(pool.submit(call, *given))
        while not (futures[0].running() or futures[0].done()):
            time.sleep(0.01)
        raise error
    return futures[0]


def test_an_interruption_ends_what_is_under_way() -> None:
    future = _failing(KeyboardInterrupt, time.sleep, 30)
    assert isinstance(future.exception(), BrokenProcessPool)


def test_a_failure_awaits_what_is_under_way() -> None:
    assert _failing(ZeroDivisionError, max, 1, 2).result() == 2


def test_processes_begin_with_what_they_are_given() -> None:
    with processes(1, torch.set_num_threads, 3) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3
