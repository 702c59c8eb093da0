"""Timing candidates in turns, so that a change of the machine's speed meets all."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["fastest", "interleaved"]


def fastest(
    candidates: Mapping[str, Callable[[], object]], trials: int
) -> dict[str, float]:
    """Best seconds of each candidate, in turns, after one call to warm up.

    With one thread, of the calling thread's CPU time, which other processes cannot
    lengthen; with more, of the wall clock.

    Args:
        candidates: functions without arguments, by name.
        trials: timed calls of each.
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
    """Seconds of each candidate in each round, all candidates once a round, rotating.

    Args:
        candidates: what to time, by name; each is called once before.
        rounds: how often.
        wall: take the wall clock instead of this process's CPU time.
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
