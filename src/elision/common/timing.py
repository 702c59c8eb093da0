"""Timing of alternatives in turns: a change in the machine's speed affects all alike."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["fastest", "interleaved"]


def fastest(
    candidates: Mapping[str, Callable[[], object]], trials: int
) -> dict[str, float]:
    """Least seconds of each candidate, in turns, after one call to warm up.

    Where torch has one thread, CPU time of the calling thread, which other processes
    cannot lengthen; wall-clock time otherwise.

    Args:
        candidates: functions without arguments, by name.
        trials: timed calls of each.

    Example:
        >>> sorted(fastest({"sum": lambda: sum(range(9)), "none": lambda: None}, 2))
        ['none', 'sum']
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(candidates, math.inf)
    for turn in range(trials + 1):
        for name, call in candidates.items():
            start = clock()
            call()
            if turn:
                best[name] = min(best[name], clock() - start)
    return best


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], rounds: int, *, wall: bool = False
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; the first of a round rotates.

    Args:
        candidates: functions without arguments, by name; each is called once before.
        rounds: timed calls of each.
        wall: measure wall-clock time instead of this process's CPU time.

    Example:
        >>> len(interleaved({"none": lambda: None}, rounds=3)["none"])
        3
    """
    clock = time.perf_counter if wall else time.process_time
    names = list(candidates)
    for call in candidates.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            candidates[name]()
            seconds[name].append(clock() - start)
    return seconds
