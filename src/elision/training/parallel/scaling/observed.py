"""A step of real ranks, observed: layers of the backward pass, and buckets on their way.

Everything is noted by hooks of torch, in seconds from the moment at which the rank leaves
a barrier of all. A layer's gradient products lie between the arrival of the gradient of
its output and the last gradient of its own parameters; the backward pass of one rank does
one thing at a time, so a layer does not begin before the one before it has ended.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]

from elision.training.parallel.hook import CompressHook, compress_hook

__all__ = ["BucketTime", "LayerTime", "ObservedModel", "StepTimes"]


class LayerTime(NamedTuple):
    """Both gradient products of a layer.

    Attributes:
        name: of the layer.
        start: seconds.
        end: likewise.

    Example:
        >>> LayerTime("fc", 1.0, 2.0).name
        'fc'
    """

    name: str
    start: float
    end: float


class BucketTime(NamedTuple):
    """A bucket on its way.

    Attributes:
        size: bytes of its gradients.
        ready: seconds at which the last of them was there.
        sent: seconds at which its exchange began.
        done: seconds at which it had ended.
        names: of the parameters.

    Example:
        >>> BucketTime(8, 1.0, 2.0, 4.0, ("w",)).done
        4.0
    """

    size: int
    ready: float
    sent: float
    done: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class StepTimes:
    """One step of one rank, in seconds from its begin.

    Attributes:
        rank: whose.
        forward: when the loss was there and the backward pass began.
        computed: when the last gradient was there.
        backward: when the backward pass returned, every bucket back.
        end: when the optimiser had stepped.
        layers: in the order of the backward pass.
        buckets: in the order in which they were sent.
        begin: seconds of the machine's clock from which the others are counted.
        start: when this rank left the barrier.

    Example:
        >>> bucket = BucketTime(size=8, ready=3.0, sent=3.0, done=3.5, names=("w",))
        >>> StepTimes(0, 1.0, 3.0, 4.0, 5.0, buckets=(bucket,)).exposed
        0.5
    """

    rank: int
    forward: float
    computed: float
    backward: float
    end: float
    layers: tuple[LayerTime, ...] = ()
    buckets: tuple[BucketTime, ...] = ()
    begin: float = 0.0
    start: float = 0.0

    def since(self, begin: float) -> "StepTimes":
        """The same in seconds from another moment of the machine's clock.

        Example:
            >>> StepTimes(0, 1.0, 2.0, 3.0, 4.0, begin=10.0).since(9.0).end
            5.0
        """
        by = self.begin - begin
        return StepTimes(
            self.rank,
            self.forward + by,
            self.computed + by,
            self.backward + by,
            self.end + by,
            tuple(LayerTime(n, start + by, end + by) for n, start, end in self.layers),
            tuple(
                BucketTime(size, ready + by, sent + by, done + by, names)
                for size, ready, sent, done, names in self.buckets
            ),
            begin,
            self.start + by,
        )

    @property
    def exposed(self) -> float:
        """Seconds of communication that no computing hid."""
        return max([b.done - self.computed for b in self.buckets] + [0.0])


@dataclass
class _Notes:
    """What the hooks wrote down in a step."""

    arrived: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    sent: dict[tuple[str, ...], float] = field(default_factory=dict)
    done: dict[tuple[str, ...], float] = field(default_factory=dict)


class ObservedModel:
    """A model in ``DistributedDataParallel`` whose steps are noted: a collective call.

    Args:
        model: in training mode, of a kind that DDP takes.
        compress: spec of a compressor; None: the gradients are all-reduced as they are.

    Raises:
        ValueError: as :func:`~elision.training.parallel.compress_hook`.

    Example:
        >>> ObservedModel(nn.Linear(2, 1))
        Traceback (most recent call last):
        ValueError: ObservedModel: no ranks are connected; start two or more, by torchrun
    """

    def __init__(self, model: nn.Module, compress: str | None = None) -> None:
        if not distributed.is_initialized():
            raise ValueError(
                "ObservedModel: no ranks are connected; start two or more, by torchrun"
            )
        self.model = model
        self.parallel = nn.parallel.DistributedDataParallel(model)
        self._notes = _Notes()
        self._name_of = {id(p): name for name, p in model.named_parameters()}
        self._sizes = {name: p.nbytes for name, p in model.named_parameters()}
        self._ranks = distributed.get_world_size()
        self._hook: CompressHook | None = None
        if compress is None:
            self.parallel.register_comm_hook(self, _reduced)
        else:
            self._hook = compress_hook(self.parallel, compress)

    def step(
        self,
        loss: Callable[[nn.Module], Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        sends: bool = True,
    ) -> StepTimes:
        """Take a step with all other ranks, and say what happened when.

        Args:
            loss: forward pass and loss of the module that it is given.
            optimizer: of the model's parameters.
            sends: whether gradients travel; otherwise each rank keeps its own.
        """
        self._notes = notes = _Notes()
        with self._hooked(notes):
            optimizer.zero_grad()
            distributed.barrier()
            begin = time.perf_counter()
            with nullcontext() if sends else self.parallel.no_sync():
                value = loss(self.parallel)
                forward = time.perf_counter()
                value.backward()
            backward = time.perf_counter()
            optimizer.step()
            end = time.perf_counter()
        buckets = tuple(
            BucketTime(
                sum(self._sizes[name] for name in names),
                max(notes.ready[name] for name in names) - begin,
                sent - begin,
                notes.done[names] - begin,
                names,
            )
            for names, sent in sorted(notes.sent.items(), key=lambda item: item[1])
        )
        return StepTimes(
            distributed.get_rank(),
            forward - begin,
            max(notes.ready.values()) - begin,
            backward - begin,
            end - begin,
            tuple(self._layers(notes, begin)),
            buckets,
            begin,
        )

    def _layers(self, notes: _Notes, begin: float) -> Iterator[LayerTime]:
        """Layers by their end, none before the end of the one before."""
        ends: dict[str, float] = {}
        for name, at in notes.ready.items():
            layer = name.rpartition(".")[0]
            if layer in notes.arrived:
                ends[layer] = max(at, ends.get(layer, at))
        free = 0.0
        for layer, at in sorted(ends.items(), key=lambda item: item[1]):
            start = max(notes.arrived[layer] - begin, free)
            free = max(at - begin, start)
            yield LayerTime(layer, start, free)

    @contextmanager
    def _hooked(self, notes: _Notes) -> Iterator[None]:
        """Hooks of one step."""

        def arrived(layer: str) -> Callable[[nn.Module, Any, Any], None]:
            def note(gradient: Tensor) -> None:
                del gradient
                notes.arrived.setdefault(layer, time.perf_counter())

            def forwarded(module: nn.Module, given: Any, output: Any) -> None:
                del module, given
                found = output if isinstance(output, tuple) else (output,)
                for each in found:
                    if isinstance(each, Tensor) and each.requires_grad:
                        each.register_hook(note)

            return forwarded

        def ready(parameter: Tensor) -> None:
            notes.ready[self._name_of[id(parameter)]] = time.perf_counter()

        handles = [
            module.register_forward_hook(arrived(name))
            for name, module in self.model.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        ]
        handles += [
            p.register_post_accumulate_grad_hook(ready)
            for p in self.model.parameters()
            if p.requires_grad
        ]
        if self._hook is not None:
            self._hook.observer = self._note
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            if self._hook is not None:
                self._hook.observer = None

    def _note(self, what: str, names: tuple[str, ...]) -> None:
        when = {"sent": self._notes.sent, "done": self._notes.done}[what]
        when[names] = time.perf_counter()

    def reduced(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """The mean of a bucket over ranks, as without a hook, noted before and after."""
        names = tuple(self._name_of[id(p)] for p in bucket.parameters())
        self._note("sent", names)
        buffer = bucket.buffer().div_(self._ranks)
        work = distributed.all_reduce(
            buffer, group=self.parallel.process_group, async_op=True
        )
        assert work is not None

        def ended(future: torch.futures.Future[list[Tensor]]) -> Tensor:
            self._note("done", names)
            return future.value()[0]

        return work.get_future().then(ended)


def _reduced(state: ObservedModel, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    # Torch reads the name of the second parameter.
    return state.reduced(bucket)
