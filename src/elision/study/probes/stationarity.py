"""Stationarity: training that has come to rest."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from elision.common.checks import integer, number
from elision.common.files import without_nan
from elision.study.probes.base import Probe, Trained
from elision.topology import attach
from elision.training.stationarity import StationarityWatch
from elision.workloads import Batch

__all__ = ["Stationarity"]


@dataclass(frozen=True)
class Stationarity(Probe):
    """Train on at a constant rate and watch (:mod:`elision.training.stationarity`).

    A schedule that ends at rate zero stops any run, so the question is what the run does
    at a rate that does not fall. Masks go on moving where their rule still moves them.

    Attributes:
        steps: further steps, all of which the verdict is about.
        rate: learning rate, as a share of the one that the workload starts with.
        looks: pairs of independent batches whose gradients are compared, spread evenly.
        curvature: whether to find the sharpness at the last look.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Stationarity(steps=20)
        Traceback (most recent call last):
        ValueError: stationarity(steps=20): must be an integer >= 40
    """

    steps: int = 400
    rate: float = 0.1
    looks: int = 10
    curvature: bool = True

    def __post_init__(self) -> None:
        integer("stationarity", "steps", self.steps, ">= 40")
        integer("stationarity", "looks", self.looks, f"[2, {self.steps}]")
        number("stationarity", "rate", self.rate, "> 0")

    def headline(self, found: dict[str, Any]) -> str:
        """The verdict."""
        return found["verdict"]

    def run(self, trained: Trained) -> dict[str, Any]:
        """The verdict, its reasons, the figures behind it and the loss of every step."""
        workload, model = trained.workload, trained.model
        task = workload.task
        rate = self.rate * workload.learning_rate
        optimizer = workload.make_optimizer(model, rate)
        attach(model, optimizer)
        workload.clip_gradients(optimizer)
        watch = StationarityWatch(model, optimizer, task.loss, window=self.steps)
        others, every = _first_batches(trained), self.steps // self.looks
        stream = _full_batches(trained)
        # One more than watched: the first only says where the weights started.
        for step in range(self.steps + 1):
            optimizer.zero_grad()
            loss = task.loss(model, next(stream))
            if not torch.isfinite(loss):
                return {
                    "verdict": "diverged",
                    "reasons": [
                        f"the loss is {loss.item()} at step {step} of the probe"
                    ],
                    "rate": rate,
                    "losses": watch.losses,
                }
            loss.backward()
            optimizer.step()
            watch(loss.item())
            if len(watch.looks) < min(self.looks, len(watch.losses) // every):
                first, second = next(others), next(others)
                last = len(watch.looks) == self.looks - 1
                size = task.size(first)
                watch.look(first, second, size, curvature=last and self.curvature)
        found = asdict(watch.report())
        rate = optimizer.param_groups[0]["lr"]
        return without_nan({**found, "rate": rate, "losses": watch.losses})


def _full_batches(trained: Trained) -> Iterator[Batch]:
    """The batches that would have come next, without the smaller last of an epoch."""
    task = trained.workload.task
    size = min(trained.workload.batch_size, task.train_size(trained.dataset))
    epoch = trained.workload.epochs
    while True:
        for batch in _epoch(trained, trained.seed, epoch):
            if task.size(batch) == size:
                yield batch
        epoch += 1


def _first_batches(trained: Trained) -> Iterator[Batch]:
    """Independent batches: the first of an epoch each, in an order of their own."""
    epoch = 0
    while True:
        yield next(_epoch(trained, trained.seed + 1, epoch))
        epoch += 1


def _epoch(trained: Trained, seed: int, epoch: int) -> Iterator[Batch]:
    return trained.workload.train_batches(trained.dataset, seed=seed, epoch=epoch)
