"""Ranks: the processes of a data-parallel run, as ``torchrun`` starts them.

Every rank computes a share of each batch and ends each step with the same weights. One
process is one rank, and every function here is then the identity.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    rendezvous,  # pyright: ignore[reportPrivateImportUsage]
)

from elision.training.parallel.agreement import check_agreement, facts_of
from elision.workloads import Batch

__all__ = ["Ranks", "is_local", "joined"]

T = TypeVar("T")


def is_local(buffer: str) -> bool:
    """Whether a buffer, by its name, is a recipe's state, which each rank has of its own."""
    return buffer.rpartition(".")[2].startswith("elision_")


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: from 0; rank 0 writes files and prints.
        count: processes.
        local: rank among the processes of this machine.

    Example:
        >>> alone = Ranks()
        >>> alone.is_first, alone.gather("loss")
        (True, ['loss'])
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """As ``torchrun`` tells its processes; a process of its own without it."""
        rank, count, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        )
        return cls(rank, count, local)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order (a collective call)."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """This rank's examples of a batch, and the factor of their mean loss.

        The mean over ranks of factor times mean loss is the batch's mean loss, also
        where the shares differ in size. A batch of fewer examples than ranks goes to
        every rank as a whole.
        """
        size = len(batch[0])
        if self.count == 1 or size < self.count:
            return batch, 1.0
        first = size * self.rank // self.count
        last = size * (self.rank + 1) // self.count
        share = tuple(tensor[first:last] for tensor in batch)
        return share, (last - first) * self.count / size

    def mine(self, batches: Iterator[T]) -> Iterator[T]:
        """Every ``count``-th of the batches, beginning at this rank's."""
        return (b for i, b in enumerate(batches) if i % self.count == self.rank)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over ranks.

        Raises:
            RuntimeError: the ranks differ in the model, the recipe or the masks.
        """
        if self.count == 1:
            return model
        check_agreement(facts_of(model))
        return nn.parallel.DistributedDataParallel(model)

    @torch.no_grad()
    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the running statistics of rank 0 (a collective call)."""
        if self.count > 1:
            for name, buffer in model.named_buffers():
                if not is_local(name):
                    distributed.broadcast(buffer, 0)


def _store_of_restart() -> Store | None:
    """Where processes that ``torchrun`` started again meet; None: as usual.

    ``torchrun`` keeps one store over its restarts, and torch puts the addresses of the
    new processes under the names of the dead ones' (torch 2.13): a rank that reads before
    the other has written calls a process that is gone. Only one machine's ``torchrun``
    counts the restarts as all ranks see them; on several, give it
    ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1``.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return None
    store, *_ = next(iter(rendezvous("env://")))
    return PrefixStore(f"restart{restarts}", store)


@contextmanager
def joined(device: str, timeout: float | None = None) -> Iterator[Ranks]:
    """The ranks of this run, connected while the block runs.

    Args:
        device: ``"cuda"`` connects them by NCCL, any other device by gloo.
        timeout: seconds that a rank waits for another; None: torch's 10 or 30 minutes.
    """
    ranks = Ranks.from_environment()
    if ranks.count == 1:
        yield ranks
        return
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(ranks.local)
    store = _store_of_restart()
    distributed.init_process_group(
        "nccl" if on_cuda else "gloo",
        timeout=None if timeout is None else timedelta(seconds=timeout),
        store=store,
        rank=-1 if store is None else ranks.rank,
        world_size=-1 if store is None else ranks.count,
    )
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()
