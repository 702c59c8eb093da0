"""Sharing a kernel's work among as many threads as torch uses."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

__all__ = ["in_threads"]

#: Elements below which a thread of its own does not pay (own choice).
_LEAST = 2**17


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="elision-memory")


os.register_at_fork(after_in_child=_pool.cache_clear)  # its threads are not copied


def in_threads(run: Callable[[int, int], None], items: int, size: int) -> None:
    """Call ``run(first, last + 1)`` on shares of ``items`` items.

    Args:
        run: works on a share, independently of the others, without holding the
            interpreter's lock for long.
        items: number of items.
        size: elements per item; few elements stay in the calling thread.
    """
    if not items:
        return
    threads = min(torch.get_num_threads(), max(1, items * size // _LEAST))
    if threads == 1:
        run(0, items)
        return
    cuts = [items * i // threads for i in range(threads + 1)]
    others = [
        _pool(torch.get_num_threads()).submit(run, a, b) for a, b in pairwise(cuts[1:])
    ]
    run(cuts[0], cuts[1])
    for other in others:
        other.result()
