"""A classification trained by a loss of one's own, and judged by its own softmax."""

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.functional import taylor_softmax
from elision.layers import elide
from elision.workloads import Dataset, Workload

__all__ = ["Loss", "trained_by"]

#: Of logits ``(N, classes)`` and labels ``(N,)``: the mean loss.
Loss = Callable[[Tensor, Tensor], Tensor]


def trained_by(
    workload: Workload,
    dataset: Dataset,
    seed: int,
    loss: Loss = F.cross_entropy,
    functions: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Train a network; everything but the loss and the functions is the workload's.

    Args:
        workload: a classification of images.
        dataset: of the workload.
        seed: of the weights and of the order of the images.
        loss: minimised.
        functions: replaced inside the model, as for :func:`elision.elide`.

    Returns:
        ``loss``, the mean of the last epoch's batches; of the test images,
        ``accuracy`` by the largest logit, ``accuracy_by_probability`` by the largest
        probability of the softmax that trained the network, and softmax's cross-entropy,
        ``test_loss``.
    """
    torch.manual_seed(seed)
    model = workload.make_model(dataset)
    if functions:
        elide(model, "dense", functions=functions)
    optimizer = workload.make_optimizer(model)
    steps = workload.steps_per_epoch(dataset)
    losses: list[float] = []
    for epoch in range(workload.epochs):
        losses.clear()
        batches = workload.train_batches(dataset, seed=seed, epoch=epoch)
        for number, (images, labels) in enumerate(batches):
            workload.set_learning_rate(optimizer, epoch * steps + number, steps)
            optimizer.zero_grad()
            value = loss(model(images), labels)
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return {"loss": statistics.fmean(losses), **_tested(workload, model, dataset, loss)}


@torch.no_grad()
def _tested(
    workload: Workload, model: nn.Module, dataset: Dataset, loss: Loss
) -> dict[str, float]:
    model.eval()
    # Softmax keeps the order of the logits; a series falls with its logit where that is
    # small, so that the largest logit may be of another class.
    order = loss.keywords.get("order") if isinstance(loss, partial) else None
    sums = {"accuracy": 0.0, "accuracy_by_probability": 0.0, "test_loss": 0.0}
    count = 0
    for images, labels in workload.test_batches(dataset):
        z = model(images)
        p = z if order is None else taylor_softmax(z, order, 1)
        sums["accuracy"] += float((z.argmax(1) == labels).sum())
        sums["accuracy_by_probability"] += float((p.argmax(1) == labels).sum())
        sums["test_loss"] += float(F.cross_entropy(z, labels, reduction="sum"))
        count += len(labels)
    return {name: value / count for name, value in sums.items()}
