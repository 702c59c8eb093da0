"""Load: much work in one process, and work at once; nothing grows, hangs or changes.

Each kind runs in a fresh process of its own.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from campaigns import steps
from campaigns.campaign import Campaign, Row

__all__ = ["LOAD"]


def _apart(kind: Callable[[int, int], Row], count: int, seed: int) -> Row:
    """A kind's row, from a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(kind, count, seed).result()


_KINDS: dict[str, Callable[[int, int], Row]] = {
    f"steps {name}": partial(steps.trained, name) for name in steps.VARIANTS
}

LOAD = Campaign(
    "load",
    "rounds",
    1000,
    {name: partial(_apart, kind) for name, kind in _KINDS.items()},
)
