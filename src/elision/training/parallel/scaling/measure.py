"""Costs of a training step measured on this machine, gradient by gradient."""

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from statistics import median

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.common.restoring import restored
from elision.common.timing import quoted_clock
from elision.training.parallel.scaling.overlap import Bucket
from elision.training.parallel.scaling.step import StepCosts
from elision.training.parallel.scaling.torch_names import one_of_many
from elision.workloads import Examples, Workload

__all__ = [
    "BATCH_SHARES",
    "clock_of",
    "measured_copies",
    "measured_step",
    "measured_workload",
]

#: Shares of the batch at which a workload's step is timed.
BATCH_SHARES = (1.0, 0.5, 0.25)


def measured_step(
    model: nn.Module,
    losses: Mapping[int, Callable[[], Tensor]],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    rounds: int = 7,
    source: str = "measured here",
    *,
    wall: bool = False,
    copies: tuple[float, float] = (0.0, 0.0),
) -> StepCosts:
    """Time a training step at several batch sizes, and when each gradient is ready.

    Medians by :func:`~elision.common.timing.quoted_clock`, after one step to warm up; the
    batch sizes take turns. The model, its buffers and the random state are put back. On
    the CPU: the work of another device is not waited for.

    Args:
        model: in training mode.
        losses: batch size -> the forward pass and loss of so many examples.
        make_optimizer: called with the model.
        rounds: timed steps of each batch size.
        source: for :attr:`StepCosts.source`.
        wall: by the wall clock, other programs' load included.
        copies: for :attr:`StepCosts.copies`; :func:`measured_copies` finds them.

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
    clock = clock_of(wall)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    wanted = [p for _, p in named]
    numbers = {p: i for i, p in enumerate(wanted)}
    when: dict[int, float] = {}

    def note(parameter: Tensor) -> None:
        when[numbers[parameter]] = clock()  # pyright: ignore[reportArgumentType]

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
                    began = clock()
                    value = loss()
                    between = clock()
                    value.backward()
                    ended = clock()
                    optimizer.step()
                    if not turn:
                        continue
                    update.append(clock() - ended)
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
    at = {i: min(median(own), 1.0) for i, own in ready.items()}
    order = sorted(at, key=lambda i: at[i])
    return StepCosts.fitted(
        {batch: median(own) for batch, own in forward.items()},
        {batch: median(own) for batch, own in backward.items()},
        median(update),
        [Bucket(wanted[i].nbytes, at[i]) for i in order],
        source,
        copies=copies,
        names=tuple(named[i][0] for i in order),
        shapes=tuple(tuple(wanted[i].shape) for i in order),
    )


def measured_copies(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    rounds: int = 7,
    *,
    wall: bool = False,
) -> tuple[float, float]:
    """Seconds that ``DistributedDataParallel`` adds to a step without sending anything.

    It copies every gradient into a bucket during the backward pass, and out of it after
    the bucket is back. A backward pass whose buckets are answered at once takes turns
    with one that fills none; medians. A copy of the model works, in the process group that
    is connected (a collective call then) or in one of torch's fake ranks. Parameters that
    the loss does not depend on are left out.

    Args:
        model: in training mode.
        loss: forward pass and loss of the module that it is given.
        rounds: timed backward passes of each kind.
        wall: as in :func:`measured_step`.

    Returns:
        Seconds before the last bucket is ready, and after.

    Example:
        >>> net = nn.Linear(64, 64)
        >>> fill, take = measured_copies(net, lambda m: m(torch.ones(2, 64)).sum(), rounds=2)
        >>> fill >= 0 and take > 0
        True
    """
    integer("measured_copies", "rounds", rounds)
    clock = clock_of(wall)
    last = 0.0

    def answer(
        state: None,
        bucket: torch.distributed.GradBucket,  # pyright: ignore[reportPrivateImportUsage]
    ) -> torch.futures.Future[Tensor]:
        nonlocal last
        del state
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        last = clock()
        return done

    connected = torch.distributed.is_initialized()
    fill: list[float] = []
    take: list[float] = []
    with nullcontext() if connected else one_of_many(2):
        own = copy.deepcopy(model)
        loss(own).backward()
        for parameter in own.parameters():
            if parameter.grad is None:  # DDP would wait for it
                parameter.requires_grad_(False)
        parallel = nn.parallel.DistributedDataParallel(own)
        parallel.register_comm_hook(None, answer)
        # Buckets are filled anew after the first step.
        for turn in range(rounds + 2):
            seconds = []
            for fills in (True, False):
                parallel.zero_grad()
                with nullcontext() if fills else parallel.no_sync():
                    value = loss(parallel)
                    began = clock()
                    value.backward()
                    ended = clock()
                seconds.append((last if fills else ended) - began)
                if fills and turn > 1:
                    take.append(ended - last)
            if turn > 1:
                fill.append(seconds[0] - seconds[1])
        del parallel
    return max(median(fill), 0.0), max(median(take), 0.0)


def clock_of(wall: bool = False) -> Callable[[], float]:
    """The wall clock, or that of :func:`~elision.common.timing.quoted_clock`.

    Example:
        >>> clock_of(wall=True) is time.perf_counter
        True
    """
    kind = "wall" if wall else quoted_clock()
    return {"thread": time.thread_time, "wall": time.perf_counter}[kind]


def measured_workload(
    workload: Workload,
    dataset: Examples,
    *,
    seed: int = 0,
    rounds: int = 7,
    source: str = "measured here",
) -> StepCosts:
    """Time a workload's step at its batch size, a half and a quarter of it.

    Args:
        workload: network, loss, optimiser and batch size.
        dataset: its data; the first batch of the first epoch is used.
        seed: of the weights and the batch.
        rounds: as in :func:`measured_step`.
        source: likewise.

    Example:
        >>> small = Workload(name="small", dataset="digits", model="mlp", batch_size=16)
        >>> costs = measured_workload(small, small.load_dataset(), rounds=1)
        >>> costs.size > 0
        True
    """
    torch.manual_seed(seed)
    model = workload.make_model(dataset).train()
    whole = next(iter(workload.train_batches(dataset, seed=seed, epoch=0)))
    sizes = {max(round(share * len(whole[0])), 1) for share in BATCH_SHARES}
    copies = measured_copies(model, lambda m: workload.task.loss(m, whole), rounds)

    def loss_of(size: int) -> Callable[[], Tensor]:
        batch = tuple(tensor[:size] for tensor in whole)
        return lambda: workload.task.loss(model, batch)

    return measured_step(
        model,
        {size: loss_of(size) for size in sorted(sizes, reverse=True)},
        workload.make_optimizer,
        rounds,
        source,
        copies=copies,
    )
