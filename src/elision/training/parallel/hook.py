"""One communication hook of DistributedDataParallel for every compressor.

Every parameter has a state of its own, so what a step gives does not depend on how the
gradients are put into buckets (DDP does so anew after the first step), and a run that is
resumed goes on as if it had not stopped.

On the CPU one thread of the hook takes the buckets in the order in which DDP has them
ready, which is the same on every rank, while the backward pass goes on; it issues every
collective itself and waits for it, in a process group of its own. Nothing is started from
a callback of a future: their order differs between ranks, and collectives that meet in
another order hang or mix their data. On CUDA the hook's work is queued on the stream of
the backward pass instead, by the thread that calls it.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]

from elision.layers import elided_layers, plan_of, states_of
from elision.products import Product
from elision.training.parallel.agreement import check_agreement, facts_of
from elision.training.parallel.compressors import (
    Compressor,
    Message,
    State,
    make_compressor,
    wire_bits,
)
from elision.training.parallel.compressors.base import Exchange, Reply, mean_of_sum
from elision.training.parallel.compressors.masked import Masked
from elision.training.parallel.wire import CheckedWire, CorruptMessageError, PlainWire

__all__ = ["CompressHook", "NonFiniteGradientWarning", "Traffic", "compress_hook"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class NonFiniteGradientWarning(RuntimeWarning):
    """A gradient is NaN on every rank, because some rank's was not finite.

    Example:
        >>> issubclass(NonFiniteGradientWarning, RuntimeWarning)
        True
    """


@dataclass
class Traffic:
    """Bits of one rank's gradients since the hook was made.

    Attributes:
        dense: of the gradients as they are.
        messages: of the compressed messages.
        sent: that this rank sends in a ring, with the one value a message that says
            whether the gradients were finite, and with checksums.
        dense_sent: that it would send for the gradients as they are.

    Example:
        >>> Traffic(dense=3200, messages=100).ratio
        32.0
    """

    dense: float = 0
    messages: float = 0
    sent: float = 0
    dense_sent: float = 0

    @property
    def ratio(self) -> float:
        """Gradient bits by message bits, before what gathering costs."""
        return self.dense / self.messages if self.messages else 1.0

    @property
    def wire_ratio(self) -> float:
        """Bits sent without compression by bits sent, gathering counted."""
        return self.dense_sent / self.sent if self.sent else 1.0


class CompressHook:
    """The hook of one model; made by :func:`compress_hook`.

    Attributes:
        compressor: of every parameter.
        states: by the parameter's name, of this rank.
        traffic: what was sent so far.
        observer: called with a bucket's index and ``"sent"`` when its exchange begins, and
            ``"done"`` when it has ended, by the thread that exchanges; None: nobody.
        not_finite: in the latest step, parameters whose gradients were not finite, by the
            rank they were on: those of the first such bucket of the backward pass.

    Example:
        >>> compress_hook(nn.Linear(2, 1), "bf16")
        Traceback (most recent call last):
        ValueError: compress_hook: Linear is no DistributedDataParallel; wrap the model first
    """

    def __init__(
        self,
        model: nn.parallel.DistributedDataParallel,
        compressor: Compressor,
        seed: int,
    ) -> None:
        outer = model.process_group
        self.compressor = compressor
        self.traffic = Traffic()
        self.observer: Callable[[int, str], None] | None = None
        members = distributed.get_process_group_ranks(outer)
        group = distributed.new_group(
            members,
            backend=distributed.get_backend(outer),
            use_local_synchronization=len(members) < distributed.get_world_size(),
        )
        assert isinstance(group, distributed.ProcessGroup)
        self._group = group
        checked = CheckedWire if compressor.checksum else PlainWire
        self._wire = checked(self._group)
        self._ranks = len(members)
        rank = distributed.get_rank(outer)
        self.states: dict[str, State] = {}
        self._state_of: dict[int, State] = {}
        for name, parameter in model.module.named_parameters():
            state = State(name=name, seed=seed, rank=rank, ranks=self._ranks)
            self.states[name] = self._state_of[id(parameter)] = state
        self._masks = _limited(model.module) if _is_masked(compressor) else {}
        self._rooms: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}
        self._thread = ThreadPoolExecutor(1, "elision-compress")
        self.not_finite: dict[int, list[str]] = {}
        self._begun = False

    def state_dict(self) -> dict[str, Tensor]:
        """What this rank remembers: ``<parameter>/<name>`` and its steps."""
        found: dict[str, Tensor] = {}
        for name, state in self.states.items():
            found[f"{name}/step"] = torch.tensor(state.step)
            found |= {f"{name}/{key}": value for key, value in state.tensors.items()}
        return found

    def load_state_dict(self, values: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` gave on this rank.

        Raises:
            KeyError: a parameter that the model does not have.
        """
        for state in self.states.values():
            state.tensors = {}
        for key, value in values.items():
            name, _, what = key.rpartition("/")
            state = self.states[name]
            if what == "step":
                state.step = int(value)
            else:
                state.tensors[what] = value.clone()

    def submit(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Exchange a bucket, after those before it."""
        buffer = bucket.buffer()
        grads, parameters = bucket.gradients(), bucket.parameters()
        states = [self._state_of[id(p)] for p in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if wanted := self._masks.get(id(parameter)):
                needed = wanted()
                state.mask = None if needed is None else needed != 0
        if not self._begun:  # of this step
            self.not_finite = {}
        self._begun = not bucket.is_last()
        if buffer.is_cuda:
            done = torch.futures.Future(devices=[buffer.device])
            self._observed(bucket.index(), buffer, grads, states)
            done.set_result(buffer)
            return done
        ended = torch.futures.Future()
        running = self._thread.submit(
            self._observed, bucket.index(), buffer, grads, states
        )
        running.add_done_callback(ended.set_result)
        # An error raised here, and no other, is one for DDP's reducer.
        return ended.then(lambda it: _result(it.value(), buffer))

    def _observed(
        self, index: int, buffer: Tensor, grads: list[Tensor], states: list[State]
    ) -> None:
        """Exchange a bucket, and tell the observer before and after."""
        if self.observer is not None:
            self.observer(index, "sent")
        where = f"bucket {index} ({states[0].name} to {states[-1].name})"
        self._exchange(buffer, grads, states, where)
        if self.observer is not None:
            self.observer(index, "done")

    @torch.no_grad()
    def _exchange(
        self, buffer: Tensor, grads: list[Tensor], states: list[State], where: str
    ) -> None:
        """Every gradient of the bucket becomes the mean over ranks, in place."""
        before = [(state.step, dict(state.tensors)) for state in states]
        try:
            everyone = self._averaged(buffer, grads, states, where)
        except CorruptMessageError:
            _restore(states, before)
            raise
        if (
            not everyone
        ):  # a NaN on one rank is one on all, and nothing of it is remembered
            buffer.fill_(torch.nan)
            _restore(states, before)
        self.traffic.dense += 8 * buffer.nbytes
        self.traffic.dense_sent += wire_bits(
            Message((buffer,), buffer.shape, summed=True), self._ranks
        )

    def _averaged(
        self, buffer: Tensor, grads: list[Tensor], states: list[State], where: str
    ) -> bool:
        """Exchange a bucket; whether the gradients of all ranks were finite."""
        # NaN takes over both ends.
        healthy = all(bool(end.isfinite()) for end in buffer.aminmax())
        ill: list[str] = []
        if not healthy:
            each = zip(grads, states, strict=True)
            ill = [state.name for grad, state in each if not grad.isfinite().all()]
            buffer.zero_()
        values = [g.float().contiguous() for g in grads]
        running: dict[int, Exchange] = {
            i: self.compressor.exchange(value, state)
            for i, (value, state) in enumerate(zip(values, states, strict=True))
        }
        means: dict[int, Tensor] = {}
        messages = {i: next(each) for i, each in running.items()}
        everyone = True
        while messages:
            replies, all_healthy = self._collective(messages, healthy, where)
            everyone = everyone and all_healthy
            messages = {}
            for i, reply in replies.items():
                try:
                    messages[i] = running[i].send(reply)
                except StopIteration as stop:
                    means[i] = stop.value[0]
        if everyone:
            for i, grad in enumerate(grads):
                grad.copy_(means[i])
        elif not self.not_finite:
            self._name(ill)
        return everyone

    def _name(self, ill: list[str]) -> None:
        """Tell every rank whose gradients are not finite; a collective call."""
        told: list[list[str]] = [[] for _ in range(self._ranks)]
        distributed.all_gather_object(told, ill, group=self._group)
        self.not_finite = {rank: names for rank, names in enumerate(told) if names}
        warnings.warn(
            f"{named(self.not_finite)}; they are NaN on every rank now",
            NonFiniteGradientWarning,
            stacklevel=2,
        )

    def _collective(
        self, messages: dict[int, Message], healthy: bool, where: str
    ) -> tuple[dict[int, Reply], bool]:
        """One collective for the messages of each kind, in the order of the first of each."""
        kinds: dict[torch.dtype | None, list[int]] = {}
        for i, message in messages.items():
            kind = message.parts[0].dtype if message.summed else None
            kinds.setdefault(kind, []).append(i)
        replies: dict[int, Reply] = {}
        everyone = True
        for kind, own in kinds.items():
            mine = [messages[i] for i in own]
            exchange = self._gathered if kind is None else self._summed
            found, all_healthy = exchange(mine, healthy, where)
            replies |= dict(zip(own, found, strict=True))
            everyone = everyone and all_healthy
            self.traffic.messages += sum(message.bits for message in mine)
        return replies, everyone

    def _summed(
        self, messages: list[Message], healthy: bool, where: str
    ) -> tuple[list[Reply], bool]:
        """All-reduce; one more value counts the ranks whose gradients are not finite."""
        flat = [part.flatten() for message in messages for part in message.parts]
        whole = self._joined([*flat, flat[0].new_full((1,), not healthy)], 0)
        self.traffic.sent += self._wire.all_reduce(whole, where)
        *sums, ill = whole.split([*(len(part) for part in flat), 1])
        means = iter(sums)
        replies: list[Reply] = [
            replace(
                m,
                parts=tuple(
                    mean_of_sum(next(means), self._ranks).view(p.shape) for p in m.parts
                ),
            )
            for m in messages
        ]
        return replies, not ill.item()

    def _gathered(
        self, messages: list[Message], healthy: bool, where: str
    ) -> tuple[list[Reply], bool]:
        """All-gather of the bytes; one more says whether the gradients are finite."""
        parts = [part for message in messages for part in message.parts]
        data = [part.contiguous().view(torch.uint8) for part in parts]
        whole = self._joined([*data, data[0].new_full((1,), not healthy)], 0)
        everyone = [self._room(whole, 1 + rank) for rank in range(self._ranks)]
        self.traffic.sent += self._wire.all_gather(everyone, whole, where)
        sizes = [*(len(part) for part in data), 1]
        of_rank = [iter(each.split(sizes)) for each in everyone]
        replies: list[Reply] = [
            [
                # A copy, since bytes of any offset are read as numbers.
                replace(
                    m, parts=tuple(next(own).clone().view(p.dtype) for p in m.parts)
                )
                for own in of_rank
            ]
            for m in messages
        ]
        return replies, not any(next(own).item() for own in of_rank)

    def _joined(self, parts: list[Tensor], slot: int) -> Tensor:
        """The parts one after the other, in memory of :meth:`_room`."""
        size = sum(len(part) for part in parts)
        return torch.cat(parts, out=self._room(parts[0], slot, size))

    def _room(self, like: Tensor, slot: int, size: int | None = None) -> Tensor:
        """Memory that the next collective with this slot and dtype takes again.

        A fresh tensor costs a page fault for every 4 KiB. Collectives follow one another,
        and what is made of a reply is a tensor of its own.
        """
        size = like.numel() if size is None else size
        key = slot, like.dtype, like.device
        if key not in self._rooms or len(self._rooms[key]) < size:
            self._rooms[key] = like.new_empty(size)
        return self._rooms[key][:size]


def compress_hook(
    model: nn.Module,
    compressor: str,
    *,
    feedback: bool | None = None,
    checksum: bool = False,
    seed: int = 0,
) -> CompressHook:
    """Let a model's gradients travel compressed: a collective call, once, before training.

    Buckets of any number, gradient accumulation (``no_sync``) and
    ``ZeroRedundancyOptimizer`` work as without. A gradient that is not finite on some rank
    is NaN on every rank, and nothing of its bucket is remembered, so that a loss scaler
    skips the step everywhere; every rank warns, once a step, of the rank and the parameter.

    Args:
        model: a ``DistributedDataParallel`` over gloo or NCCL, elided or not.
        compressor: spec of one of :data:`~elision.training.parallel.COMPRESSORS`, such as
            ``"top-k:share=0.01"``.
        feedback: whether what is not sent is remembered; None: where it has to be.
        checksum: whether every message has a checksum, as by ``checksum=true`` in the
            spec. A message that arrives changed is an error on every rank, which names
            the ranks and the bucket.
        seed: of random numbers.

    Returns:
        The hook, which knows its traffic and has a state to save.

    Raises:
        ValueError: a model that is not ``DistributedDataParallel`` or has a hook already,
            an unknown compressor, parameters in a dtype other than float32, bfloat16 and
            float16, or ``mask`` on a model without masks.
        RuntimeError: the ranks differ in the model, the recipe, the masks or the
            compressor.
    """
    made = make_compressor(compressor, feedback)
    if checksum:
        made = replace(made, checksum=True)
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(_refused(model))
    if model._comm_hooks:
        raise ValueError(
            "compress_hook: this model has a communication hook already, and "
            "DistributedDataParallel takes one"
        )
    for name, parameter in model.module.named_parameters():
        if parameter.requires_grad and parameter.dtype not in _DTYPES:
            raise ValueError(
                f"compress_hook: parameter {name!r} is {parameter.dtype}; gradients may "
                "be float32, bfloat16 or float16"
            )
    if _is_masked(made) and not _limited(model.module):
        raise ValueError(
            "compress_hook: compressor 'mask' sends the surviving weights' gradients, "
            "and no layer of this model has a mask; elide it with one, such as rigl"
        )
    how = f"{made!r} checksum {made.checksum} seed {seed}"
    facts = {**facts_of(model.module), "compressor": how}
    check_agreement(facts, model.process_group)
    hook = CompressHook(model, made, seed)
    model.register_comm_hook(hook, _submit)
    return hook


def _submit(state: CompressHook, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    # Torch reads the name of the second parameter.
    return state.submit(bucket)


def named(not_finite: Mapping[int, Sequence[str]]) -> str:
    """Ranks and their parameters in words.

    Example:
        >>> named({1: ["0.weight", "0.bias"]})
        "gradients that are not finite: rank 1 in '0.weight' and 1 more of the bucket"
    """
    told = [
        f"rank {rank} in {names[0]!r}"
        + (f" and {len(names) - 1} more of the bucket" if len(names) > 1 else "")
        for rank, names in not_finite.items()
    ]
    return f"gradients that are not finite: {'; '.join(told)}"


def _restore(
    states: Sequence[State], before: Sequence[tuple[int, dict[str, Tensor]]]
) -> None:
    for state, (step, tensors) in zip(states, before, strict=True):
        state.step, state.tensors = step, tensors


def _result(ended: "Future[None]", buffer: Tensor) -> Tensor:
    ended.result()  # raises what the thread raised
    return buffer


def _refused(model: nn.Module) -> str:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kind = type(model).__name__
    if isinstance(model, (FSDPModule, FullyShardedDataParallel)):
        return (
            f"compress_hook: {kind} is sharded (FSDP), reduces gradients by a scatter of "
            "its own and takes no such hook; use DistributedDataParallel"
        )
    return f"compress_hook: {kind} is no DistributedDataParallel; wrap the model first"


def _is_masked(compressor: Compressor) -> bool:
    return isinstance(compressor, Masked)


def _limited(model: nn.Module) -> dict[int, Callable[[], Tensor | None]]:
    """By weight, what tells where its gradient is needed in the step under way."""
    return {id(weight): wanted for weight, wanted in _masked_weights(model)}


def _masked_weights(
    model: nn.Module,
) -> Iterator[tuple[Tensor, Callable[[], Tensor | None]]]:
    for _, layer in elided_layers(model):
        plan = plan_of(layer)
        use = plan.use(Product.FORWARD, "weight")
        transform = plan.uses[use]
        if transform.limits_gradient:
            yield (
                layer.weight,  # pyright: ignore[reportReturnType]
                lambda layer=layer, use=use, transform=transform: (
                    transform.wanted_gradient(states_of(layer, use))
                ),
            )
