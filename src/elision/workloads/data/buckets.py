"""Batches of sequences for data-parallel training, by three schemes.

Every rank computes the whole plan of an epoch from the seed and the number of the epoch,
without communication, and yields its own batches. Under every scheme each rank has the
same number of batches in an epoch and no index occurs twice. N sequences rarely fill the
batches of p ranks, b sequences each:

- ``drop_last=False``: every index occurs exactly once, in ceil(N / (p b)) steps; all
  batches are of nearly one size, which differs by at most one and is at most b.
- ``drop_last=True``: all batches hold b sequences; N mod (p b) sequences, drawn at random
  in each epoch, are left out of it. None is left out for its length.
"""

import zlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from elision.common.checks import integer, one_of
from elision.common.seeds import seed_at, stream_of
from elision.workloads.data.batch_efficiency import (
    BatchEfficiency,
    Lengths,
    batch_efficiency,
    length_table,
)

__all__ = ["GlobalBuckets", "LocalBuckets", "RandomBatches", "SequenceBatches"]


class SequenceBatches(Sampler[list[int]]):
    """One rank's batches of an epoch, as lists of indices: base of the three schemes.

    Pass it to a ``DataLoader`` as ``batch_sampler``. Call :meth:`set_epoch` before each
    epoch: the order depends on the seed and the epoch alone.

    Args:
        lengths: tokens of each sequence, integers >= 1, of shape (N,); or (N, 2) for
            source and target, which are bucketed by their sum.
        batch: sequences per rank and step, at most.
        ranks: processes that train together.
        rank: of this process, in [0, ranks).
        seed: an integer >= 0, equal on all ranks.
        drop_last: leave out at random what does not fill a step, instead of making the
            batches smaller.

    Raises:
        ValueError: a parameter is outside its range, or the sequences do not suffice for
            equal numbers of non-empty batches on all ranks.
    """

    def __init__(
        self,
        lengths: Lengths,
        batch: int,
        ranks: int = 1,
        rank: int = 0,
        seed: int = 0,
        *,
        drop_last: bool = False,
    ) -> None:
        owner = type(self).__name__
        self._lengths = length_table(owner, lengths)
        self.batch = integer(owner, "batch", batch)
        self.ranks = integer(owner, "ranks", ranks)
        self.rank = integer(owner, "rank", rank, f"[0, {self.ranks})")
        self.seed = integer(owner, "seed", seed, ">= 0")
        one_of(owner, "drop_last", drop_last, (False, True))
        self.drop_last = bool(drop_last)
        self.epoch = 0
        self._kept, self._steps = self._divided(len(self._lengths))
        self._start = 0  # batches that the next iteration skips
        self._drawn = 0  # batches of this epoch that are skipped or handed out

    def _divided(self, count: int) -> tuple[int, int]:
        """Sequences of an epoch, and its steps."""
        step = self.batch * self.ranks
        given = f"{type(self).__name__}(batch={self.batch}, ranks={self.ranks})"
        if self.drop_last:
            if count < step:
                raise ValueError(
                    f"{given}: {count} sequences do not fill one step of {step}; must be "
                    f"a smaller batch, fewer ranks or drop_last=False"
                )
            return count - count % step, count // step
        steps = -(-count // step)
        if count < self.ranks:
            raise ValueError(
                f"{given}: {count} sequences leave a rank without a batch; must be at "
                f"most {count} ranks"
            )
        if count < steps * self.ranks:  # batches of one, and a rest
            raise ValueError(
                f"{given}: {count} sequences in batches of one are no multiple of the "
                f"ranks; must be drop_last=True or a batch >= 2"
            )
        return count, steps

    def __len__(self) -> int:
        """Batches of a whole epoch on each rank."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        # A generator, so that a loaded state is spent by the first batch and not by
        # iter(): a DataLoader with workers calls iter() twice before it draws.
        start, self._start = self._start, 0
        self._drawn = start
        plan = self.plan()
        for number in range(start, len(plan)):
            self._drawn = number + 1
            yield plan[number][self.rank].tolist()

    def plan(self) -> list[list[Tensor]]:
        """Indices of the epoch, by step and rank; the same on all ranks."""
        state = seed_at(stream_of("batches of sequences", self.seed), self.epoch)
        generator = torch.Generator().manual_seed(state)
        order = torch.randperm(len(self._lengths), generator=generator)
        return self._dealt(order[: self._kept], generator)

    @abstractmethod
    def _dealt(self, order: Tensor, generator: torch.Generator) -> list[list[Tensor]]:
        """The shuffled indices of an epoch, dealt to steps and ranks."""

    def _sorted(self, indices: Tensor) -> Tensor:
        """By length; equal lengths stay in their order, which another epoch shuffles."""
        return indices[self._lengths[indices].sum(1).argsort(stable=True)]

    def efficiency(self) -> BatchEfficiency:
        """Useful tokens and idle time of this epoch, over all ranks."""
        return batch_efficiency(self._lengths, self.plan())

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the epoch of a loaded state goes on in its middle.

        Args:
            epoch: number of the epoch, >= 0.

        Raises:
            ValueError: not an integer >= 0.
        """
        epoch = integer(f"{type(self).__name__}.set_epoch", "epoch", epoch, ">= 0")
        if epoch != self.epoch:
            self.epoch, self._start, self._drawn = epoch, 0, 0

    def state_dict(self, done: int | None = None) -> dict[str, Any]:
        """Where the epoch stands, and what it takes to go on there; equal on all ranks.

        Args:
            done: batches of this epoch that are trained. By default those handed out,
                which is right without workers; the workers of a ``DataLoader`` draw more
                batches ahead, so count them yourself.

        Raises:
            ValueError: not an integer in [0, batches of the epoch].
        """
        if done is not None:
            limits = f"[0, {self._steps}]"
            done = integer(f"{type(self).__name__}.state_dict", "done", done, limits)
        return {
            "epoch": self.epoch,
            "done": self._drawn if done is None else done,
            **self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the same batches: the next iteration yields the rest of the epoch.

        Raises:
            ValueError: the state is of other lengths, another scheme or parameter, which
                would give other batches, or it is no state at all.
        """
        owner = f"{type(self).__name__}.load_state_dict"
        identity = self._identity()
        expected = {"epoch", "done", *identity}
        if expected != state.keys():
            wrong = ", ".join(sorted(map(str, expected ^ state.keys())))
            raise ValueError(f"{owner}: missing or unknown keys: {wrong}")
        for name, own in identity.items():
            if state[name] != own:
                raise ValueError(
                    f"{owner}: the state has {name}={state[name]!r}, these batches have "
                    f"{name}={own!r}"
                )
        epoch = integer(owner, "epoch", state["epoch"], ">= 0")
        done = integer(owner, "done", state["done"], f"[0, {self._steps}]")
        self.epoch, self._start, self._drawn = epoch, done, done

    def _identity(self) -> dict[str, Any]:
        """What the batches depend on, beside the epoch and the rank."""
        return {
            "scheme": type(self).__name__,
            "lengths": zlib.crc32(self._lengths.numpy().tobytes()),
            "batch": self.batch,
            "ranks": self.ranks,
            "seed": self.seed,
            "drop_last": self.drop_last,
        }


class GlobalBuckets(SequenceBatches):
    """Steps of neighbours in length: nearly no padding, and ranks nearly never wait.

    All sequences are sorted by length and cut into steps, each rank takes every p-th
    sequence of a step, and the steps are shuffled. So all batches of a step are about
    equally long. (Bucketing across nodes, Kalamkar et al., CLUSTER 2019.)

    Parameters, methods and errors are those of :class:`SequenceBatches`.

    Example:
        >>> lengths = [2, 9, 4, 3, 8, 5, 7, 1, 6, 2, 9, 4]
        >>> buckets = GlobalBuckets(lengths, batch=3, ranks=2, rank=1)
        >>> [sorted(lengths[i] for i in batch) for batch in buckets]
        [[2, 3, 4], [6, 8, 9]]
        >>> buckets.efficiency()
        BatchEfficiency(useful=0.769, idle=0.000, paid=0.769)
    """

    def _dealt(self, order: Tensor, generator: torch.Generator) -> list[list[Tensor]]:
        steps = self._sorted(order).tensor_split(self._steps)
        turns = torch.randperm(self._steps, generator=generator).tolist()
        return [[steps[t][r :: self.ranks] for r in range(self.ranks)] for t in turns]


class LocalBuckets(SequenceBatches):
    """Each rank sorts and shuffles on its own: little padding, but ranks wait.

    A rank takes a random share of the sequences, sorts it by length, cuts it into batches
    and shuffles these; at one step, one rank has long sequences and another short ones.

    Args:
        lengths: see :class:`SequenceBatches`, as for the following and the errors.
        batch: sequences per rank and step, at most.
        ranks: processes that train together.
        rank: of this process.
        seed: equal on all ranks.
        drop_last: leave out at random what does not fill a step.
        shared_order: all ranks shuffle alike, so that their batches of a step are the
            same quantile of their shares: nearly as good as :class:`GlobalBuckets`.

    Example:
        >>> lengths = list(range(1, 129))
        >>> own = LocalBuckets(lengths, batch=8, ranks=4).efficiency()
        >>> shared = LocalBuckets(lengths, 8, 4, shared_order=True).efficiency()
        >>> shared.useful == own.useful, shared.idle < own.idle
        (True, True)
    """

    def __init__(
        self,
        lengths: Lengths,
        batch: int,
        ranks: int = 1,
        rank: int = 0,
        seed: int = 0,
        *,
        drop_last: bool = False,
        shared_order: bool = False,
    ) -> None:
        super().__init__(lengths, batch, ranks, rank, seed, drop_last=drop_last)
        one_of("LocalBuckets", "shared_order", shared_order, (False, True))
        self.shared_order = bool(shared_order)

    def _dealt(self, order: Tensor, generator: torch.Generator) -> list[list[Tensor]]:
        shares = order.tensor_split(self.ranks)
        queues = [self._sorted(share).tensor_split(self._steps) for share in shares]
        first, *others = (
            torch.randperm(self._steps, generator=generator).tolist() for _ in queues
        )
        turns = [first, *(first if self.shared_order else turn for turn in others)]
        return [
            [queue[turn[s]] for queue, turn in zip(queues, turns, strict=True)]
            for s in range(self._steps)
        ]

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"shared_order": self.shared_order}


class RandomBatches(SequenceBatches):
    """Batches in a random order, whatever the lengths: the naive scheme.

    Parameters, methods and errors are those of :class:`SequenceBatches`.

    Example:
        >>> batches = RandomBatches([3, 1, 4, 1, 5], batch=2)
        >>> sorted(i for batch in batches for i in batch)
        [0, 1, 2, 3, 4]
    """

    def _dealt(self, order: Tensor, generator: torch.Generator) -> list[list[Tensor]]:
        steps = order.tensor_split(self._steps)
        return [[step[r :: self.ranks] for r in range(self.ranks)] for step in steps]
