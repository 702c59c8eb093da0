"""Schedules without a flush, on a small runtime of this project's own.

Each processor runs its list of operations. What a stage's forward pass reads is settled
by the schedule alone and not by who is faster: micro-batch ``i`` waits until its stage has
had exactly the updates that the delay leaves. So a run gives the same numbers every time,
and they are the emulator's.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from elision.training.pipeline.chain import (
    channel_dimension,
    input_gradient,
    weight_gradients,
)
from elision.training.pipeline.delays import BackwardWeights
from elision.training.pipeline.emulator import split
from elision.training.pipeline.runtime.messages import Mail, Message
from elision.training.pipeline.runtime.orders import HALF, Orders
from elision.training.pipeline.runtime.stage import Stage, products_of
from elision.training.pipeline.scheduler import Operation
from elision.training.pipeline.weights import MakeOptimizer, StageWeights

__all__ = ["Asynchronous", "Timed"]

#: Inputs and target of a batch.
Batch = tuple[Tensor, Tensor]


class Timed(NamedTuple):
    """An operation as it ran.

    Attributes:
        operation: which.
        start, end: seconds of this process's clock; waiting for messages is left out.
    """

    operation: Operation
    start: float
    end: float


class Asynchronous:
    """This rank's stages under a schedule that never drains.

    Args:
        orders: the table of operations.
        stages: all stages of the model; this rank trains those that the plan gives it.
        loss: of the last stage's output and a target, the mean over examples.
        make_optimizer: of one stage's parameters.
        backward: which weights the backward pass reads.
        rank: this process's.
        batches: as many as give the orders' micro-batches.
        microbatches: parts of a batch.
    """

    def __init__(
        self,
        orders: Orders,
        stages: Sequence[nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        make_optimizer: MakeOptimizer,
        backward: BackwardWeights,
        rank: int,
        batches: Iterator[Batch],
        microbatches: int,
    ) -> None:
        self.orders, self.rank, self.modules = orders, rank, stages
        self._batches, self._microbatches = batches, microbatches
        self._parts: dict[int, Batch] = {}
        self._read = 0
        self.stages = {
            index: Stage(
                module,
                StageWeights(
                    module, make_optimizer, orders.plan.delays[index], backward
                ),
                loss if index == len(stages) - 1 else None,
                orders.plan.pipeline.splits,
                orders.per_update,
            )
            for index, module in enumerate(stages)
            if orders.rank_of(index) == rank
        }
        #: Products whose weight gradient this rank or another computes apart.
        self._products = {
            index: products_of(module)
            for index, module in enumerate(stages)
            if orders.away(index) or index in orders.halves
        }
        self.kept = dict.fromkeys(self.stages, 1)
        self.losses: dict[int, float] = {}
        self.timed: list[Timed] = []
        self._updated: list[float] = []
        #: Tensors that come from a stage on this rank, and parts of weight gradients.
        self._here: dict[Message, list[Tensor]] = {}
        #: Micro-batches of each stage whose weight gradient is not collected yet.
        self._waiting: dict[int, list[int]] = {s: [] for s in self.stages}

    def run(self, shapes: dict[tuple[str, int, int], list[Tensor]]) -> None:
        """Run this rank's operations to the end.

        Args:
            shapes: tensors of the shapes of every kind of message (:class:`Mail`).
        """
        self.mail = Mail(self.orders.expected(self.rank), shapes)
        self._half_shapes = {
            s: shapes["half", s, 0][0].shape for s in self.orders.halves
        }
        for operation in self.orders.by_rank[self.rank]:
            self._perform(operation)
        for index, stage in self.stages.items():
            self._advance(index, self.orders.updates)
            self.kept[index] = max(self.kept[index], stage.weights.kept)
        self.mail.finish()

    def update_seconds(self) -> list[float]:
        """Seconds from each update of this rank's first stage to the next."""
        return [b - a for a, b in zip(self._updated, self._updated[1:], strict=False)]

    def _perform(self, operation: Operation) -> None:
        kind, index, i, part = operation
        sends: dict[Message, list[Tensor]] = {}
        if kind == "F":
            stage = self.stages[index]
            self._advance(index, self.orders.version_of(index, i))
            x = self._input(index, i)
            target = self._batch(i)[1] if index == len(self.modules) - 1 else None
            start = time.perf_counter()
            y = stage.forward(i, x, target)
            if target is None:
                sends[Message("activation", index + 1, i)] = [y]
            else:
                self.losses[i] = float(y)
                self._parts.pop(i)
        elif kind == "I" and part == HALF:
            g, weight = self._take(Message("half's operands", index, i))
            start = time.perf_counter()
            product = self._products[index][-1]
            assert product is not None
            half = input_gradient(product, weight, self._half_shapes[index], g)
            sends[Message("half", index, i)] = [half]
        elif kind in "BI":
            stage = self.stages[index]
            if stage.weights.backward.reads != "used":
                self._advance(index, self.orders.update_of(i))
            incoming = self._incoming(index, i)
            start = time.perf_counter()
            if kind == "B":
                dx = stage.backward(i, incoming)
            else:
                in_two = partial(self._in_two, index, i)
                dx = stage.input_gradient(
                    i, incoming, in_two if index in self.orders.halves else None
                )
                self._waiting[index].append(i)
                for other in self.orders.away(index):
                    layers = self.orders.layers_of(index, other)
                    sends[Message("operands", index, i, other)] = stage.operands(
                        i, layers
                    )
            if index:
                assert dx is not None
                sends[Message("gradient", index - 1, i)] = [dx]
        elif part in self.orders.away(index):
            operands = self._take(Message("operands", index, i, part))
            start = time.perf_counter()
            found = self._elsewhere(index, part, operands)
            sends[Message("weight gradient", index, i, part)] = found
        elif self.orders.parts(index):
            start = time.perf_counter()
            self.stages[index].part_gradient(i, self.orders.layers_of(index, part))
        else:
            start = time.perf_counter()
            self._waiting[index].remove(i)
            self.stages[index].weight_gradient(i, {})
        self.timed.append(Timed(operation, start, time.perf_counter()))
        # In the order that the receiver expects.
        for message, rank in self.orders.sent_by(operation):
            if message in sends:  # the operands of a half went ahead
                self.mail.send(sends.pop(message), rank)
        self._here |= sends

    def _in_two(
        self, index: int, i: int, product: nn.Module, x: Tensor, g: Tensor
    ) -> Tensor:
        """Input gradient of a product, a share of whose channels another rank computes."""
        half = self.orders.halves[index]
        weight = product.get_parameter("weight").detach()
        kept = half.kept(weight.shape[1])
        # A copy: the module holds other weights when the message leaves.
        self.mail.send([g, weight[:, kept:].clone()], half.place)
        own = []
        if kept:
            shape = x.narrow(channel_dimension(product), 0, kept).shape
            own = [input_gradient(product, weight[:, :kept], shape, g)]
        found = [*own, *self._take(Message("half", index, i))]
        return torch.cat(found, channel_dimension(product))

    def _advance(self, index: int, version: int) -> None:
        """Update a stage until it has had so many updates."""
        stage = self.stages[index]
        while stage.weights.updates < version:
            self._fetch_parts(index, stage.weights.updates)
            stage.step()
            if index == min(self.stages):
                self._updated.append(time.perf_counter())
            self.kept[index] = max(self.kept[index], stage.weights.kept)

    def _fetch_parts(self, index: int, update: int) -> None:
        """Put together the weight gradients of an update that were computed in parts."""
        stage, waiting = self.stages[index], self._waiting[index]
        while not stage.collected(update):
            i = waiting.pop(0)
            own: dict[int, Sequence[Tensor]] = {}
            for part in self.orders.away(index):
                tensors = self._take(Message("weight gradient", index, i, part))
                for layer in self.orders.layers_of(index, part):
                    count = len(self._parameters(index, layer))
                    own[layer], tensors = tensors[:count], tensors[count:]
            stage.weight_gradient(i, own)

    def _elsewhere(
        self, index: int, part: int, operands: Sequence[Tensor]
    ) -> list[Tensor]:
        """Weight gradients of a part of a stage, whose weights need not be here."""
        found: list[Tensor] = []
        for place, layer in enumerate(self.orders.layers_of(index, part)):
            product = self._products[index][layer]
            assert product is not None
            x, g = operands[2 * place : 2 * place + 2]
            found += weight_gradients(product, x, g)
        return found

    def _parameters(self, index: int, layer: int) -> list[nn.Parameter]:
        product = self._products[index][layer]
        assert product is not None
        return [p for p in product.parameters() if p.requires_grad]

    def _input(self, index: int, i: int) -> Tensor:
        if index == 0:
            x = self._batch(i)[0]
            if len(self.modules) - 1 not in self.stages:
                self._parts.pop(i)
            return x
        [x] = self._take(Message("activation", index, i))
        return x.requires_grad_()

    def _incoming(self, index: int, i: int) -> Tensor | None:
        if index == len(self.modules) - 1:
            return None
        [g] = self._take(Message("gradient", index, i))
        return g

    def _take(self, message: Message) -> list[Tensor]:
        if message in self._here:
            return self._here.pop(message)
        return self.mail.take(message, self.orders.sender_of(message))

    def _batch(self, i: int) -> Batch:
        """Micro-batch ``i``; batches are read in their order, as far as needed."""
        while i not in self._parts:
            inputs, target = next(self._batches)
            parts = (split(t, self._microbatches) for t in (inputs, target))
            for x, wanted in zip(*parts, strict=True):
                self._parts[self._read] = x, wanted
                self._read += 1
        return self._parts[i]
