"""Before training: bytes that a policy would store, and the largest batch that fits."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from elision.common.checks import integer, number
from elision.common.restoring import restored
from elision.memory.modules import tensors_in
from elision.memory.saver import saver

__all__ = ["explain", "largest_batch"]


def explain(model: nn.Module, batch: Any, policy: Any = "exact", **options: Any) -> str:
    """The saver's report of one forward pass that leaves no trace.

    Buffers (running statistics) and the random state are put back, no gradient is
    computed and the graph is dropped.

    Args:
        model: the module to explain.
        batch: arguments of the model: a tensor, a tuple of arguments, or a mapping of
            keyword arguments.
        policy: as for :class:`~elision.memory.saver`.
        **options: further arguments of the saver.

    Returns:
        Per module and role: logical bytes, stored bytes, codec and declared error.
    """
    devices = {t.device for t in tensors_in(batch) if t.device.type != "cpu"}
    with (
        restored(model),
        torch.random.fork_rng(devices=[d.index for d in devices]),
        torch.enable_grad(),
        saver(model, policy, **options) as saved,
    ):
        if isinstance(batch, Mapping):
            result = model(**batch)
        else:
            result = model(*batch) if isinstance(batch, tuple) else model(batch)
    del result
    return saved.report()


def largest_batch(
    peak_bytes: Callable[[int], int], limit_bytes: int, *, at_most: int = 65536
) -> int:
    """The largest batch whose peak stays within a limit, by doubling and bisection.

    Args:
        peak_bytes: batch size -> measured peak, for instance
            ``lambda n: measure_peak(lambda: step(n)).peak_bytes``; expected to grow
            with the batch.
        limit_bytes: largest peak allowed.
        at_most: largest batch to try.

    Returns:
        0 if not even a single example fits.

    Raises:
        ValueError: the limit or ``at_most`` is not positive.
    """
    number("largest_batch", "limit_bytes", limit_bytes, "(0, inf]")
    integer("largest_batch", "at_most", at_most)
    fits, too_large = 0, 1
    while too_large <= at_most and peak_bytes(too_large) <= limit_bytes:
        fits, too_large = too_large, 2 * too_large
    too_large = min(too_large, at_most + 1)
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if peak_bytes(middle) <= limit_bytes:
            fits = middle
        else:
            too_large = middle
    return fits
