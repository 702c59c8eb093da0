"""A plan, run: every rank trains its stages, and all end with the trained model."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from elision.common.restoring import restored
from elision.products import Product
from elision.training.pipeline.chain import (
    chain,
    channel_dimension,
    halves,
    stages_of,
)
from elision.training.pipeline.delays import backward_weights
from elision.training.pipeline.emulator import no_tied_weights, split
from elision.training.pipeline.runtime.asynchronous import Asynchronous, Timed
from elision.training.pipeline.runtime.lost import signs_of_life
from elision.training.pipeline.runtime.orders import Orders
from elision.training.pipeline.runtime.planned import Planned
from elision.training.pipeline.runtime.stage import products_of
from elision.training.pipeline.runtime.synchronous import Synchronous
from elision.training.pipeline.weights import MakeOptimizer
from elision.training.ranks import joined

__all__ = ["PipelineRun", "run", "stages_in"]

_LOG = logging.getLogger(__name__)

#: Runs in this process, so that each has keys of its own in the group's store.
_RUNS = itertools.count()


@dataclass(frozen=True)
class PipelineRun:
    """What a run gave, the same on every rank but for the last two.

    Attributes:
        losses: of every update, in order: the mean over its micro-batches.
        kept: copies of its weights that each stage held, at most.
        seconds: wall-clock seconds of each step of a synchronous schedule; of any other
            the seconds from each update of this rank's first stage to the next.
        operations: this rank's operations as they ran; empty for a synchronous schedule,
            which torch runs.

    Example:
        >>> PipelineRun(losses=(2.5, 1.9), kept=(2, 1), seconds=(0.1, 0.1)).losses[-1]
        1.9
    """

    losses: tuple[float, ...]
    kept: tuple[int, ...]
    seconds: tuple[float, ...]
    operations: tuple[Timed, ...] = ()


def run(
    plan: Planned,
    model: nn.Module | Sequence[nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    make_optimizer: MakeOptimizer,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    weights: str | None = None,
    timeout: float | None = None,
) -> PipelineRun:
    """Train a model by a plan, one process per processor.

    Every rank calls it with the same arguments, the model's weights among them. Each batch
    is cut into the plan's micro-batches. A synchronous schedule updates once a batch, as
    does PipeDream-2BW; any other updates after every micro-batch. Batch normalisation sees
    one micro-batch at a time, so that its statistics are a micro-batch's.

    Start it with ``torchrun --nproc_per_node=P script.py``; the ranks connect here, or
    before by :func:`elision.training.joined`.

    Args:
        plan: whose layers are the model's.
        model: a model that can be cut (:func:`~elision.training.pipeline.chain.chain`), or
            its layers as modules that pass one tensor on. It is trained in place: at the
            end every rank has all weights and statistics.
        loss: of the last layer's output and a target; the mean over examples.
        make_optimizer: of the parameters of one stage.
        batches: inputs and target each, all of one shape.
        weights: what the backward pass of a delayed stage reads, key of
            :data:`~elision.training.pipeline.delays.WEIGHTS`; default: as the schedule
            has it.
        timeout: seconds after which a silent rank counts as lost; default: 60. A group
            that exists already has its own.

    Raises:
        ValueError: the plan does not fit the model or the number of processes, two stages
            share a parameter, a schedule cannot be run, or an argument is out of range.
        DeadlockError: operations would wait for one another; nothing has run.
        LostProcessorError: another rank died, failed, or no longer answers.
    """
    if not batches:
        raise ValueError("run(batches=[]): at least one batch is needed")
    stages = stages_in(plan, model, split(batches[0][0], plan.microbatches)[0])
    with _connected(batches[0][0].device, timeout):
        rank, count = distributed.get_rank(), distributed.get_world_size()
        if count != plan.processors:
            raise ValueError(
                f"the plan has {plan.processors} processors, and {count} processes run; "
                f"start it with torchrun --nproc_per_node={plan.processors}"
            )
        _check_one_plan(plan)
        if rank == 0:
            _say_what_batch_norm_means(plan, stages)
        with signs_of_life(f"pipeline{next(_RUNS)}"):
            if plan.schedule.synchronous:
                found = _synchronous(
                    plan, stages, loss, make_optimizer, batches, weights
                )
            else:
                found = _asynchronous(
                    plan, stages, loss, make_optimizer, batches, weights
                )
            _share(plan, stages)
            return _shared(plan, found)


def stages_in(
    plan: Planned, model: nn.Module | Sequence[nn.Module], example: Tensor
) -> list[nn.Module]:
    """The plan's stages of a model, checked.

    Args:
        plan: a plan.
        model: the model, or its layers.
        example: inputs of a micro-batch.

    Raises:
        ValueError: as :func:`run`.
    """
    name = plan.schedule.name
    if len(plan.pipeline.lanes) > 1:
        raise ValueError(
            f"schedule {name!r}: two processors hold one stage, which is planned here "
            "but not run"
        )
    layers = list(model) if isinstance(model, Sequence) else chain(model, example)
    if len(layers) != len(plan.costs):
        raise ValueError(
            f"the plan has {len(plan.costs)} layers and the model {len(layers)}"
        )
    counts = [len(own) for own in plan.partition.layers[: plan.partition.chain]]
    _check_halves(plan, layers)
    stages = stages_of(layers, counts)
    no_tied_weights(stages)
    first = next(s for s, m in enumerate(stages) if _trains(m) or s + 1 == len(stages))
    if plan.schedule.synchronous and first > 0:
        raise ValueError(
            f"stage 0 has no parameters to train, so that nothing flows back to it; "
            f"let it have the layers of stage {first}, too"
        )
    return stages


def _check_halves(plan: Planned, layers: Sequence[nn.Module]) -> None:
    """Raise ValueError where a share of an input gradient lies where it cannot run."""
    partition, name = plan.partition, plan.schedule.name
    homes = {l: s for s, own in enumerate(partition.layers) for l in own}
    for place, pieces in enumerate(partition.stages):
        for piece in pieces:
            home = homes[piece.layer]
            whole = home == place or not piece.layer  # the first has no input gradient
            if piece.product is not Product.INPUT_GRAD or whole:
                continue
            last = piece.layer == max(partition.layers[home])
            fits = last and place == home + 1 and partition.layers[place]
            if plan.schedule.synchronous or not fits:
                raise ValueError(
                    f"schedule {name!r}: the plan computes {piece.share:g} of the input "
                    f"gradient of layer {piece.layer}, of stage {home}, on processor "
                    f"{place}; what runs is a share of a stage's last layer on the next "
                    "stage's processor, under LayerPipe's schedules; give the partition "
                    "of layerpipe-intra"
                )
            product = (halves(layers[piece.layer]) or (None,))[0]
            if product is None or getattr(product, "groups", 1) > 1:
                raise ValueError(
                    f"schedule {name!r}: the input gradient of layer {piece.layer} is not "
                    "that of a plain linear layer or convolution in one group, so it "
                    "cannot be cut in two; give the partition of layerpipe-intra"
                )


def _check_one_plan(plan: Planned) -> None:
    """Raise ValueError unless every rank has the same operations in the same order.

    Two plans of costs that each rank measured for itself may differ; the ranks would wait
    for one another.
    """
    order = [(a.processor, a.kind, a.stage, a.microbatch, a.part) for a in plan.actions]
    mine = repr((plan.schedule.name, plan.partition, sorted(order, key=lambda o: o[0])))
    digests: list[Any] = [None] * distributed.get_world_size()
    own = hashlib.sha256(mine.encode()).hexdigest()
    distributed.all_gather_object(digests, own)
    if len(set(digests)) > 1:
        raise ValueError(
            "the ranks have different plans; measure the costs on one rank and give them "
            "to all, such as ranks.gather(costs)[0]"
        )


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _say_what_batch_norm_means(plan: Planned, stages: Sequence[nn.Module]) -> None:
    normed = any(isinstance(m, _BatchNorm) for s in stages for m in s.modules())
    if normed and plan.microbatches > 1:
        _LOG.warning(
            "batch normalisation uses the statistics of each of the %d micro-batches, "
            "not of the whole batch",
            plan.microbatches,
        )


@contextmanager
def _connected(device: torch.device, timeout: float | None) -> Iterator[None]:
    """The process group that exists, or one for the time being."""
    if not distributed.is_initialized():
        with joined(device.type, timeout=60.0 if timeout is None else timeout) as ranks:
            if ranks.count == 1:
                raise ValueError(
                    "a plan runs in several processes; start it by torchrun"
                )
            yield
        return
    if timeout is not None:
        raise ValueError(
            f"run(timeout={timeout}): the process group exists already; give it the "
            "time-out when it is made"
        )
    yield


@dataclass
class _Found:
    """What one rank has to tell."""

    losses: list[float]
    kept: dict[int, int]
    seconds: list[float]
    operations: list[Timed]


def _synchronous(
    plan: Planned,
    stages: Sequence[nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    make_optimizer: MakeOptimizer,
    batches: Sequence[tuple[Tensor, Tensor]],
    weights: str | None,
) -> _Found:
    if weights is not None:
        raise ValueError(
            f"run(weights={weights!r}): schedule {plan.schedule.name!r} is synchronous; "
            "its weights do not change between the two passes"
        )
    passes = _passes(stages, split(batches[0][0], plan.microbatches)[0])
    runtime = Synchronous(
        plan,
        stages,
        loss,
        make_optimizer,
        distributed.get_rank(),
        [values[0] for values in passes] + [passes[-1][-1]],
    )
    losses = [runtime.step(*batch) for batch in batches]
    return _Found(
        [value for value in losses if value is not None],
        dict.fromkeys(runtime.mine, 1),
        runtime.seconds,
        [],
    )


def _asynchronous(
    plan: Planned,
    stages: Sequence[nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    make_optimizer: MakeOptimizer,
    batches: Sequence[tuple[Tensor, Tensor]],
    weights: str | None,
) -> _Found:
    per_update = plan.microbatches if plan.schedule.weights == "double" else 1
    updates = len(batches) * plan.microbatches // per_update
    orders = Orders.of(plan, updates, per_update)
    example = split(batches[0][0], plan.microbatches)[0]
    shapes = _shapes(orders, stages, example)
    runtime = Asynchronous(
        orders,
        stages,
        loss,
        make_optimizer,
        backward_weights(plan.schedule, weights),
        distributed.get_rank(),
        iter(batches),
        plan.microbatches,
    )
    runtime.run(shapes)
    ordered = [runtime.losses[i] for i in sorted(runtime.losses)]
    means = [
        sum(ordered[i : i + per_update]) / per_update
        for i in range(0, len(ordered), per_update)
    ]
    return _Found(means, runtime.kept, runtime.update_seconds(), runtime.timed)


@torch.no_grad()
def _passes(stages: Sequence[nn.Module], x: Tensor) -> list[list[Tensor]]:
    """Input of each stage's layers and its output, from a pass without gradients."""
    passes = []
    for stage in stages:
        values = [x]
        with restored(stage, random_state=True):
            for layer in stage.children():
                values.append(layer(values[-1]))
        passes.append(values)
        x = values[-1]
    return passes


@torch.no_grad()
def _shapes(
    orders: Orders, stages: Sequence[nn.Module], x: Tensor
) -> dict[tuple[str, int, int], list[Tensor]]:
    """Tensors of the shape of every kind of message."""
    shapes: dict[tuple[str, int, int], list[Tensor]] = {}
    for index, values in enumerate(_passes(stages, x)):
        shapes["activation", index, 0] = [values[0]]
        shapes["gradient", index, 0] = [values[-1]]
        products = products_of(stages[index])
        for part in orders.away(index):
            operands, gradients = [], []
            for place in orders.layers_of(index, part):
                product = products[place]
                if product is None:
                    raise ValueError(
                        f"stage {index}, layer {place}: its weight gradient is not that "
                        "of a plain convolution or linear layer, so no other processor "
                        "can compute it; keep it in its stage"
                    )
                operands += [values[place], product(values[place])]
                gradients += [p for p in product.parameters() if p.requires_grad]
            shapes["operands", index, part] = operands
            shapes["weight gradient", index, part] = gradients
        if index in orders.halves:
            product = products[-1]
            assert product is not None  # as stages_in has found
            x, weight = values[len(products) - 1], product.get_parameter("weight")
            kept = orders.halves[index].kept(weight.shape[1])
            dimension = channel_dimension(product)
            half = x.narrow(dimension, kept, x.shape[dimension] - kept)
            shapes["half's operands", index, 0] = [product(x), weight[:, kept:]]
            shapes["half", index, 0] = [half]
    return shapes


@torch.no_grad()
def _share(plan: Planned, stages: Sequence[nn.Module]) -> None:
    """Give every rank the weights and statistics of every stage."""
    for stage, owner in zip(stages, plan.pipeline.lanes[0], strict=True):
        for tensor in itertools.chain(stage.parameters(), stage.buffers()):
            distributed.broadcast(tensor.data, owner)


def _shared(plan: Planned, found: _Found) -> PipelineRun:
    """Losses of the last stage's rank, and every stage's copies, on all ranks."""
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, (found.losses, found.kept))
    kept = {s: c for _, of_rank in everyone for s, c in of_rank.items()}
    losses = next(l for l, _ in everyone if l)
    stages = range(plan.pipeline.stages)
    return PipelineRun(
        tuple(losses),
        tuple(kept[s] for s in stages),
        tuple(found.seconds),
        tuple(found.operations),
    )
