"""Load: much work in one process, and work at once; nothing grows, hangs or changes.

Each kind runs in a fresh process of its own. Threads of GNU's OpenMP sleep while they
wait, since several programs may share the cores.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from campaigns import cycles, steps, thread_counts, together
from campaigns.campaign import Campaign, Row

__all__ = ["LOAD"]


def _apart(kind: Callable[[int, int], Row], count: int, seed: int) -> Row:
    """A kind's row, from a process that has done nothing else."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(kind, count, seed).result()


_KINDS: dict[str, Callable[[int, int], Row]] = {
    **{f"steps {name}": partial(steps.trained, name) for name in steps.VARIANTS},
    **{name: partial(cycles.cycled, name) for name in cycles.CYCLES},
    "forked loaders": partial(together.loaded, "fork", False),
    "spawned loaders": partial(together.loaded, "spawn", False),
    "killed loaders": partial(together.loaded, "fork", True),
    "forks at work": together.forks,
    "two threads": together.threads,
    "products on 1, 2, 4 threads": thread_counts.products,
    "trainings on 1, 2, 4 threads": thread_counts.trainings,
}

LOAD = Campaign(
    "load",
    "rounds",
    1000,
    {name: partial(_apart, kind) for name, kind in _KINDS.items()},
)
