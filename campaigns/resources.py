"""What a process holds, sampled while it repeats a piece of work, and whether that grows.

Every count is taken after the collector has run and the allocator has given back what is
free. The verdict compares the median of the samples of the last third of the rounds with
that of the second third: the first third may fill caches, and one odd sample moves no
median.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as global_hooks

from campaigns.campaign import Row

__all__ = ["MEMORY_BYTES", "SHARE", "repeated", "sampled", "verdict"]

#: Samples of a whole run: twenty in each third.
_SAMPLES = 60

#: Things left behind in fewer than this share of the rounds are not called a leak: caches
#: of a bounded size still fill, and Python's own tables grow by doubling.
SHARE = 0.1

#: Growth of the resident memory, between the medians of two thirds, that is not called a
#: leak. Where nothing leaks, arenas and pages wander by up to a quarter of it (records).
MEMORY_BYTES = 2 * 2**20

#: What is counted exactly: steady work has as many of it in every sample.
_EXACT = ("descriptors", "threads", "hooks", "children")

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


def repeated(
    round_: Callable[[int], Any], rounds: int, kept: Collection[str] = ()
) -> Row:
    """Do a piece of work again and again, and sample what the process holds.

    Args:
        round_: one round, given its number; it is called twice more before the first
            sample, for what is made once.
        rounds: their number.
        kept: types of which the work keeps objects, and says so.

    Returns:
        The rounds, what grew, and the first and last sample.
    """
    at = {rounds * k // _SAMPLES for k in range(1, _SAMPLES + 1)}
    with tempfile.TemporaryFile("w+") as file, _only_later_objects():
        for number in (-2, -1, *range(rounds)):
            round_(number)
            if number + 1 in at:
                file.write(json.dumps(sampled()) + "\n")  # not into what is counted
        file.seek(0)
        samples = [json.loads(line) for line in file]
    grown, bad = verdict(samples, rounds, kept)
    ends = {
        name: {k: v for k, v in sample.items() if k != "objects"}
        for name, sample in (("first", samples[0]), ("last", samples[-1]))
    }
    return Row({"rounds": rounds}, bad, {"grown": grown, **ends})


@contextlib.contextmanager
def _only_later_objects() -> Iterator[None]:
    """Context in which the collector knows no object that was there before."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def sampled() -> dict[str, Any]:
    """What this process holds now.

    Returns:
        ``memory_bytes`` (resident), numbers of ``descriptors``, ``threads``,
        ``children``, ``tensors`` and ``hooks``, and ``objects`` by type.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not the C library of GNU
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    tasks = os.listdir("/proc/self/task")
    children = (Path(f"/proc/self/task/{task}/children") for task in tasks)
    kinds: Counter[type] = Counter(map(type, gc.get_objects()))
    counted = {
        "memory_bytes": pages * resource.getpagesize(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(tasks),
        "children": sum(len(_text(path).split()) for path in children),
        "tensors": sum(n for k, n in kinds.items() if issubclass(k, torch.Tensor)),
        "hooks": _hooks(),
    }
    names: Counter[str] = Counter()
    for kind, number in kinds.items():
        names[f"{kind.__module__}.{kind.__qualname__}"] += number
    return counted | {"objects": names}


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError:  # a thread that has ended since, or a system that does not tell
        return ""


def _hooks() -> int:
    """Hooks of the modules made since, of all modules, and of saved tensors."""
    modules = [o for o in gc.get_objects() if issubclass(type(o), nn.Module)]
    own = sum(len(getattr(m, name, ())) for m in modules for name in _HOOKS)
    shared = sum(len(getattr(global_hooks, name)) for name in _GLOBAL_HOOKS)
    saved = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
    return own + shared + (saved is not None)


def verdict(
    samples: list[dict[str, Any]], rounds: int, kept: Collection[str] = ()
) -> tuple[dict[str, float], list[str]]:
    """What grew from the second third of the samples to the last, and what is a leak.

    Args:
        samples: as :func:`sampled` gives them, evenly spread over the rounds.
        rounds: from which the samples are.
        kept: types that may grow.

    Returns:
        The growth of each resource, objects of a type named ``object TYPE``; and what
        grew beyond its bound, in words.
    """
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[-third:]
    between = rounds / 3
    grown, bad = {}, []
    for name in samples[0]:
        if name == "objects":
            continue
        growth = _median(last, name) - _median(middle, name)
        grown[name] = growth
        if growth > _bound(name, between):
            bad.append(f"{name} grew by {growth:g} in {between:.0f} rounds")
    for kind in sorted({kind for sample in samples for kind in sample["objects"]}):
        of_kind = [[s["objects"].get(kind, 0) for s in part] for part in (middle, last)]
        growth = statistics.median(of_kind[1]) - statistics.median(of_kind[0])
        if growth > SHARE * between and kind not in kept:
            bad.append(f"objects {kind} grew by {growth:g} in {between:.0f} rounds")
        if growth > 0:
            grown[f"object {kind}"] = growth
    return grown, bad


def _median(samples: list[dict[str, Any]], name: str) -> float:
    return statistics.median(sample[name] for sample in samples)


def _bound(name: str, between: float) -> float:
    """The largest growth over so many rounds that is not a leak."""
    if name == "memory_bytes":
        return MEMORY_BYTES
    return 0 if name in _EXACT else SHARE * between
