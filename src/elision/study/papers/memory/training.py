"""Short real trainings under saved-activation policies."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from elision.memory.measures.measure import loss_under
from elision.workloads import Dataset, Workload

__all__ = ["TrainingRow", "train_policies"]


@dataclass(frozen=True)
class TrainingRow:
    """Accuracies after training under one policy.

    Attributes:
        policy: its name; ``"plain"`` is plain autograd.
        accuracies: share of the test images classified rightly, one per seed.
        losses: training loss of the last epoch, one per seed.

    Example:
        >>> TrainingRow("plain", (0.9, 0.92), (0.3, 0.28)).accuracies
        (0.9, 0.92)
    """

    policy: str
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]


def train_policies(
    workload: Workload,
    dataset: Dataset,
    policies: Sequence[Any],
    seeds: Sequence[int] = (0, 1, 2),
    report: Callable[[str], None] = lambda line: None,
) -> list[TrainingRow]:
    """Train a workload's model in plain autograd and under each policy.

    Weights, order of the batches and augmentation follow from the seed alone and are
    the same for all policies.
    """
    rows = []
    for policy in (None, *policies):
        runs = [_train(workload, dataset, policy, seed) for seed in seeds]
        accuracies, losses = zip(*runs, strict=True)
        name = "plain" if policy is None else str(policy)
        rows.append(TrainingRow(name, accuracies, losses))
        each = ", ".join(f"{100 * a:.2f}" for a in accuracies)
        report(
            f"{workload.name}: {name} {100 * statistics.mean(accuracies):.2f} % ({each})"
        )
    return rows


def _train(
    workload: Workload, dataset: Dataset, policy: Any, seed: int
) -> tuple[float, float]:
    """Accuracy and last training loss of one run."""
    torch.manual_seed(seed)
    model = workload.make_model(dataset)
    optimizer = workload.make_optimizer(model)
    per_epoch = workload.steps_per_epoch(dataset)
    step, loss = 0, 0.0
    for epoch in range(workload.epochs):
        batches = workload.train_batches(dataset, seed=seed, epoch=epoch)
        loss = 0.0
        for images, labels in batches:
            workload.set_learning_rate(optimizer, step, per_epoch)
            optimizer.zero_grad()
            value = loss_under(policy, model, images, labels, seed=step)
            value.backward()
            optimizer.step()
            loss += value.item() * len(labels) / workload.task.train_size(dataset)
            step += 1
    return workload.task.evaluate(model, workload.test_batches(dataset)), loss
