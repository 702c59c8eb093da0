"""Costs of a training step measured on this machine, gradient by gradient."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.common.restoring import restored
from elision.training.parallel.scaling.overlap import Bucket
from elision.training.parallel.scaling.step import StepCosts

__all__ = ["measured_step"]


def measured_step(
    model: nn.Module,
    losses: Mapping[int, Callable[[], Tensor]],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    rounds: int = 7,
    source: str = "measured here",
) -> StepCosts:
    """Time a training step at several batch sizes, and when each gradient is ready.

    Wall-clock medians, after one step to warm up; the batch sizes take turns. The model,
    its buffers and the random state are put back.

    Args:
        model: in training mode.
        losses: batch size -> the forward pass and loss of so many examples.
        make_optimizer: called with the model.
        rounds: timed steps of each batch size.
        source: for :attr:`StepCosts.source`.

    Returns:
        The costs; gradients in the order of the largest batch, those of a parameter that
        is used more than once when the last part was added.

    Raises:
        ValueError: no batch size, or a model without a gradient.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 2, bias=False))
        >>> costs = measured_step(
        ...     net,
        ...     {n: lambda n=n: net(torch.ones(n, 8)).sum() for n in (2, 8)},
        ...     lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
        ...     rounds=2,
        ... )
        >>> [gradient.size for gradient in costs.gradients]
        [32, 128]
    """
    integer("measured_step", "rounds", rounds)
    if not losses:
        raise ValueError("measured_step: give the loss of at least one batch size")
    wanted = [p for p in model.parameters() if p.requires_grad]
    numbers = {p: i for i, p in enumerate(wanted)}
    when: dict[int, float] = {}

    def note(parameter: Tensor) -> None:
        when[numbers[parameter]] = time.perf_counter()  # pyright: ignore[reportArgumentType]

    forward: dict[int, list[float]] = {batch: [] for batch in losses}
    backward: dict[int, list[float]] = {batch: [] for batch in losses}
    update: list[float] = []
    ready: dict[int, list[float]] = {}
    largest = max(losses)
    with restored(model, random_state=True):
        handles = [p.register_post_accumulate_grad_hook(note) for p in wanted]
        try:
            optimizer = make_optimizer(model)
            for turn in range(rounds + 1):
                for batch, loss in losses.items():
                    optimizer.zero_grad()
                    when.clear()
                    began = time.perf_counter()
                    value = loss()
                    between = time.perf_counter()
                    value.backward()
                    ended = time.perf_counter()
                    optimizer.step()
                    if not turn:
                        continue
                    update.append(time.perf_counter() - ended)
                    forward[batch].append(between - began)
                    backward[batch].append(ended - between)
                    if batch == largest:
                        for i, at in when.items():
                            share = (at - between) / (ended - between)
                            ready.setdefault(i, []).append(share)
        finally:
            for handle in handles:
                handle.remove()
            model.zero_grad()
    if not ready:
        raise ValueError("measured_step: no parameter of the model has a gradient")
    sizes = {i: p.numel() * p.element_size() for i, p in enumerate(wanted)}
    gradients = [Bucket(sizes[i], min(median(own), 1.0)) for i, own in ready.items()]
    return StepCosts.fitted(
        {batch: median(own) for batch, own in forward.items()},
        {batch: median(own) for batch, own in backward.items()},
        median(update),
        sorted(gradients, key=lambda gradient: gradient.ready),
        source,
    )
