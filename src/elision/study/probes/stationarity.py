"""Has training come to rest?"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.study.probes.base import Probe, Trained
from elision.topology import attach
from elision.training.loop import TrainingDivergedError
from elision.training.stationarity import StationarityWatch

__all__ = ["Stationarity"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stationarity(Probe):
    """Train on at a constant rate and watch (:mod:`elision.stationarity`).

    A schedule that ends at rate zero stops any run, so the question is what the run does
    at a rate that does not fall. Masks go on moving where their rule still moves them.

    Attributes:
        steps: how many more; the verdict is about all of them.
        rate: learning rate, as a share of the one that the workload starts with.
        looks: pairs of independent batches whose gradients are compared, spread evenly.
        curvature: whether to find the sharpness at the last look.
    """

    steps: int = 400
    rate: float = 0.1
    looks: int = 10
    curvature: bool = True

    def __post_init__(self) -> None:
        if self.steps < 40:
            raise ValueError(f"stationarity: steps={self.steps}: must be >= 40")
        if not 2 <= self.looks <= self.steps:
            raise ValueError(
                f"stationarity: looks={self.looks}: must be in [2, steps={self.steps}]"
            )
        if not self.rate > 0:
            raise ValueError(f"stationarity: rate={self.rate}: must be > 0")

    def ask(self, trained: Trained) -> dict[str, Any]:
        """The verdict, its reasons, the figures behind it and the loss of every step."""
        workload, model = trained.workload, trained.model
        rate = self.rate * workload.learning_rate
        optimizer = workload.make_optimizer(model, rate)
        attach(model, optimizer)
        watch = StationarityWatch(model, optimizer, _loss, window=self.steps)
        others, every = _first_batches(trained), self.steps // self.looks
        stream = _full_batches(trained)
        # One more than watched: the first only says where the weights started.
        for step in range(self.steps + 1):
            optimizer.zero_grad()
            loss = _loss(model, next(stream))
            if not torch.isfinite(loss):
                raise TrainingDivergedError(
                    f"the loss is {loss.item()} at step {step} of the stationarity probe"
                )
            loss.backward()
            optimizer.step()
            watch(loss.item())
            if len(watch.looks) < min(self.looks, len(watch.losses) // every):
                first, second = next(others), next(others)
                last = len(watch.looks) == self.looks - 1
                size = len(first[1])
                watch.look(first, second, size, curvature=last and self.curvature)
        found = asdict(watch.report())
        return _finite({**found, "rate": optimizer.param_groups[0]["lr"]}) | {
            "losses": watch.losses
        }


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _full_batches(trained: Trained) -> Iterator[Batch]:
    """The batches that would have come next, without the smaller last of an epoch."""
    size = min(trained.workload.batch_size, len(trained.dataset.train_labels))
    epoch = trained.workload.epochs
    while True:
        for batch in _epoch(trained, trained.seed, epoch):
            if len(batch[1]) == size:
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


def _finite(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
