"""Seconds of a training step on this machine."""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from elision.common.checks import integer
from elision.common.timing import interleaved, quoted_clock, with_threads
from elision.engines import NativeEngine, decisions
from elision.layers import elide, elided_layers, restore
from elision.study.probes.base import Probe, Trained
from elision.topology import attach

__all__ = ["Speed"]


@dataclass(frozen=True)
class Speed(Probe):
    """Time steps of the trained model: dense, masked and with the zeros left out.

    A step is a forward pass, the loss, the backward pass and the optimiser. *Dense* is
    the plain model, *masked* the recipe with zeros multiplied like other values
    (``engine="torch"``), *engine* the recipe as ``elide(..., engine="auto")`` runs it.
    The three take turns in one process, on the same batches.

    Attributes:
        rounds: timed steps of each, after one that warms up and decides.
        batch: examples a step; 0 for the workload's own number.
        threads: of torch and the kernels; 0 to leave torch's setting as it is.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Speed(rounds=2)
        Traceback (most recent call last):
        ValueError: speed(rounds=2): must be an integer >= 3
    """

    rounds: int = 9
    batch: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        for name, least in (("rounds", 3), ("batch", 0), ("threads", 0)):
            integer("speed", name, getattr(self, name), f">= {least}")

    def headline(self, found: dict[str, Any]) -> str:
        """How much faster than the plain model with the zeros left out."""
        seconds = found["seconds"]
        return f"{seconds['dense'] / seconds['engine']:.2f}x as fast"

    def run(self, trained: Trained) -> dict[str, Any]:
        """Median seconds of each way, and the engine's decisions.

        With one thread CPU time, which other processes cannot lengthen, with more the
        wall clock.
        """
        with with_threads(self.threads):
            return self._run(trained)

    def _run(self, trained: Trained) -> dict[str, Any]:
        known = {d.question for d in decisions()}
        ways = {
            "dense": restore(copy.deepcopy(trained.model)),
            "masked": _elided(trained, "torch"),
            "engine": _elided(trained, "auto"),
        }
        size = self.batch or trained.workload.batch_size
        candidates = {n: _steps(m, trained, size) for n, m in ways.items()}
        seconds = interleaved(candidates, self.rounds)
        ratios = [
            d / e for d, e in zip(seconds["dense"], seconds["engine"], strict=True)
        ]
        low, _, high = statistics.quantiles(ratios, n=4)
        return {
            "seconds": {n: statistics.median(times) for n, times in seconds.items()},
            "dense_over_engine_spread": (high - low) / 2,
            "batch": size,
            "threads": torch.get_num_threads(),
            "clock": "wall" if quoted_clock() == "wall" else "CPU",
            "kernels": NativeEngine().unavailable() or "native",
            "decided": [str(d) for d in decisions() if d.question not in known],
        }


def _elided(trained: Trained, engine: str) -> nn.Module:
    """A copy of the trained model, by another engine, with its masks and thresholds."""
    model = restore(copy.deepcopy(trained.model))
    elide(model, trained.method, engine=engine)
    model.load_state_dict(trained.model.state_dict())
    return model


def _steps(model: nn.Module, trained: Trained, size: int) -> Callable[[], None]:
    """One training step a call, on the same few batches in turn."""
    workload = replace(trained.workload, batch_size=size)
    model.train()
    # A rate so small that the weights stay those of the trained model.
    optimizer = workload.make_optimizer(model, learning_rate=1e-6)
    if next(elided_layers(model), None) is not None:
        attach(model, optimizer)
    workload.clip_gradients(optimizer)
    batches = workload.train_batches(trained.dataset, seed=trained.seed, epoch=0)
    task = workload.task
    kept = [b for b in islice(batches, 4) if task.size(b) == size] or [
        next(iter(batches))
    ]
    turn = 0

    def step() -> None:
        nonlocal turn
        batch = kept[turn % len(kept)]
        turn += 1
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()

    return step
