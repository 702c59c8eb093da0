"""Calibration: the link between the ranks that are connected, by all-reduces of its own."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import distributed

from elision.common.checks import integer
from elision.training.parallel.scaling.link import Link, fit_link, measured_curve

__all__ = ["SIZES", "LinkCosts", "measured_link"]

#: Bytes that are reduced: from a message that is all latency to a full bucket of torch's.
SIZES = tuple(2**power for power in (12, 16, 18, 20, 22, 23, 24, 25))


@dataclass(frozen=True)
class LinkCosts:
    """What all-reduces of several sizes took.

    Attributes:
        ranks: that took part.
        sizes: bytes that were reduced.
        seconds: medians, of the slowest rank.
        core_share: processor seconds over seconds of the largest all-reduce, of the
            threads that moved and added its bytes; at most 1.

    Example:
        >>> costs = LinkCosts(2, (8, 80), (2.0, 6.0), 0.5)
        >>> costs.link.seconds(40), round(costs.line.bandwidth), costs.line_error < 1e-9
        (3.0, 18, True)
    """

    ranks: int
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    core_share: float

    @property
    def link(self) -> Link:
        """The link with the messages as they were measured; the line is beside them."""
        line = self.line
        curve = measured_curve(self.sizes, self.seconds, self.ranks)
        return Link(line.bandwidth, line.latency, curve)

    @property
    def line(self) -> Link:
        """Latency and bandwidth alone, fitted to all sizes."""
        return fit_link(self.sizes, self.seconds, self.ranks)[0]

    @property
    def line_error(self) -> float:
        """The largest relative error of :attr:`line` at the measured sizes."""
        return fit_link(self.sizes, self.seconds, self.ranks)[1]

    @property
    def ranks_have_no_spare_core(self) -> bool:
        """Whether this machine's cores are all taken by the ranks' threads.

        The ranks are taken to be on one machine; ``torchrun`` says how many are.
        """
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.ranks))
        cores = os.cpu_count() or 1
        return here * torch.get_num_threads() >= cores


def measured_link(sizes: Sequence[int] = SIZES, rounds: int = 15) -> LinkCosts:
    """Time all-reduces of float32 between all ranks: a collective call.

    Args:
        sizes: bytes, at least three different ones, so that a line can be wrong.
        rounds: timed all-reduces of each, after one to warm up; sizes take turns.

    Raises:
        ValueError: fewer than three sizes, or no other rank is connected.

    Example:
        >>> measured_link()
        Traceback (most recent call last):
        ValueError: measured_link: no ranks are connected; start two or more, by torchrun
    """
    integer("measured_link", "rounds", rounds)
    wanted = tuple(
        sorted({integer("measured_link", "sizes", n, ">= 4") for n in sizes})
    )
    if len(wanted) < 3:
        raise ValueError(
            f"measured_link(sizes={list(sizes)}): give three sizes or more"
        )
    if not distributed.is_initialized() or distributed.get_world_size() < 2:
        raise ValueError(
            "measured_link: no ranks are connected; start two or more, by torchrun"
        )
    tensors = {size: torch.ones(size // 4) for size in wanted}
    seconds: dict[int, list[float]] = {size: [] for size in wanted}
    moving: list[float] = []
    for turn in range(rounds + 1):
        for size, tensor in tensors.items():
            tensor.fill_(1.0)
            distributed.barrier()
            wall, process, own = _clocks()
            distributed.all_reduce(tensor)
            took = [
                now - then
                for now, then in zip(_clocks(), (wall, process, own), strict=True)
            ]
            if turn:
                seconds[size].append(took[0])
                if size == wanted[-1]:
                    moving.append((took[1] - took[2]) / took[0])
    found = torch.tensor([*(median(own) for own in seconds.values()), median(moving)])
    found = found.double()
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    *slowest, share = found.tolist()
    return LinkCosts(
        distributed.get_world_size(),
        wanted,
        tuple(slowest),
        min(max(share, 0.0), 1.0),
    )


def _clocks() -> tuple[float, float, float]:
    """Wall clock, processor time of the process, and of this thread."""
    return time.perf_counter(), time.process_time(), time.thread_time()
