"""Processes that train clients: each with a model of its own, the server's in none."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from elision.common.workers import processes
from elision.training.parallel.federated.client import Clients, Job, Report, packed

__all__ = ["trainers"]

#: Trains jobs and gives their reports in the order of the jobs.
Train = Callable[[Sequence[Job]], list[Report]]

#: The clients of a worker process.
_clients: Clients | None = None


@contextmanager
def trainers(clients: Clients, made: tuple[Any, ...], workers: int) -> Iterator[Train]:
    """What trains jobs: this process, or so many others.

    Args:
        clients: of this process.
        made: the arguments that they were made of, from which others make their own.
        workers: processes; 1: this one.
    """
    if workers <= 1:
        yield lambda jobs: [clients.train(job) for job in jobs]
        return
    with processes(workers, _begin, packed(made), torch.get_num_threads()) as pool:
        yield lambda jobs: [
            pickle.loads(found) for found in pool.map(_train, map(packed, jobs))
        ]


def _begin(made: bytes, threads: int) -> None:
    """Make the clients of this process; sums depend on the number of threads."""
    global _clients
    torch.set_num_threads(threads)
    _clients = Clients(*pickle.loads(made))


def _train(job: bytes) -> bytes:
    assert _clients is not None
    return packed(_clients.train(pickle.loads(job)))
