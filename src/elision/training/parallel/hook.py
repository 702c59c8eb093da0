"""One communication hook of DistributedDataParallel for every compressor.

Every parameter has a state of its own, so what a step gives does not depend on how the
gradients are put into buckets (DDP does so anew after the first step), and a run that is
resumed goes on as if it had not stopped.

On the CPU one thread of the hook takes the buckets in the order in which DDP has them
ready, which is the same on every rank, while the backward pass goes on; it issues every
collective itself and waits for it, in a process group of its own. The last bucket waits for
those before and is exchanged by the thread of the backward pass, which has nothing else to
do and the gradients in its cache. Nothing is started from
a callback of a future: their order differs between ranks, and collectives that meet in
another order hang or mix their data. On CUDA the hook's work is queued on the stream of
the backward pass instead, by the thread that calls it.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]

from elision.training.parallel.agreement import check_agreement, facts_of
from elision.training.parallel.channel import Channel, Traffic
from elision.training.parallel.compressors import Compressor, State, make_compressor
from elision.training.parallel.compressors.masked import Masked
from elision.training.parallel.masks import needed_gradients
from elision.training.parallel.wire import CheckedWire, CorruptMessageError, PlainWire

__all__ = ["CompressHook", "NonFiniteGradientWarning", "Traffic", "compress_hook"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class NonFiniteGradientWarning(RuntimeWarning):
    """A gradient is NaN on every rank, because some rank's was not finite.

    Example:
        >>> issubclass(NonFiniteGradientWarning, RuntimeWarning)
        True
    """


class CompressHook:
    """The hook of one model; made by :func:`compress_hook`.

    Attributes:
        compressor: of every parameter.
        states: by the parameter's name, of this rank.
        observer: called with ``"sent"`` when the exchange of a bucket begins, and ``"done"``
            when it has ended, and the names of the bucket's parameters, by the thread that
            exchanges; None: nobody.
        not_finite: in the latest step, parameters whose gradients were not finite, by the
            rank they were on: those of the first such bucket of the backward pass.
        error: that ended an exchange, such as a lost connection; DDP shows its text alone.

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
        self.observer: Callable[[str, tuple[str, ...]], None] | None = None
        members = distributed.get_process_group_ranks(outer)
        group = distributed.new_group(
            members,
            backend=distributed.get_backend(outer),
            use_local_synchronization=len(members) < distributed.get_world_size(),
        )
        assert isinstance(group, distributed.ProcessGroup)
        checked = CheckedWire if compressor.checksum else PlainWire
        self._channel = Channel(checked(group))
        rank = distributed.get_rank(outer)
        self.states: dict[str, State] = {}
        self._state_of: dict[int, State] = {}
        for name, parameter in model.module.named_parameters():
            state = State(name=name, seed=seed, rank=rank, ranks=len(members))
            self.states[name] = self._state_of[id(parameter)] = state
        self._masks = needed_gradients(model.module) if _is_masked(compressor) else {}
        self._whole = State(seed=seed, rank=rank, ranks=len(members))
        self._thread = ThreadPoolExecutor(1, "elision-compress")
        self._running: list[Future[None]] = []
        self.not_finite: dict[int, list[str]] = {}
        self._begun = False
        self.error: BaseException | None = None

    @property
    def traffic(self) -> Traffic:
        """What was sent so far."""
        return self._channel.traffic

    @traffic.setter
    def traffic(self, traffic: Traffic) -> None:
        self._channel.traffic = traffic

    def state_dict(self) -> dict[str, Tensor]:
        """What this rank remembers: ``<parameter>/<name>`` and its steps."""
        found: dict[str, Tensor] = {}
        for name, state in self.states.items():
            found[f"{name}/step"] = torch.tensor(state.step)
            # A copy: those of a bucket may lie in one piece of memory.
            found |= {
                f"{name}/{k}": value.clone() for k, value in state.tensors.items()
            }
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
        if bucket.is_last():  # no backward pass is left that this could hide behind
            before, self._running = self._running, []
            try:
                for running in before:
                    running.result()
                self._observed(bucket.index(), buffer, grads, states)
            except Exception as error:
                self.error = self.error or error
                raise
            done = torch.futures.Future()
            done.set_result(buffer)
            return done
        ended = torch.futures.Future()
        running = self._thread.submit(
            self._observed, bucket.index(), buffer, grads, states
        )
        self._running.append(running)
        running.add_done_callback(ended.set_result)
        # An error raised here, and no other, is one for DDP's reducer.
        return ended.then(lambda it: self._result(it.value(), buffer))

    def _result(self, ended: "Future[None]", buffer: Tensor) -> Tensor:
        self.error = self.error or ended.exception()
        ended.result()  # raises what the thread raised
        return buffer

    def _observed(
        self, index: int, buffer: Tensor, grads: list[Tensor], states: list[State]
    ) -> None:
        """Exchange a bucket, and tell the observer before and after."""
        names = tuple(state.name for state in states)
        if self.observer is not None:
            self.observer("sent", names)
        where = f"bucket {index} ({states[0].name} to {states[-1].name})"
        self._exchange(buffer, grads, states, where)
        if self.observer is not None:
            self.observer("done", names)

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
        self._channel.count_dense(buffer)

    def _averaged(
        self, buffer: Tensor, grads: list[Tensor], states: list[State], where: str
    ) -> bool:
        """Exchange a bucket; whether the gradients of all ranks were finite."""
        looks = self.compressor.looks and buffer.is_cpu
        healthy = looks or _is_finite(buffer)
        ill: list[str] = []
        if not healthy:
            ill = _not_finite(grads, states)
            buffer.zero_()
        as_one = self.compressor.valuewise and all(g.is_contiguous() for g in grads)
        sent, senders = grads, states
        if as_one:
            sent, senders = [buffer], [self._whole]
            self._whole.tensors = _together(states, grads)
        for grad, state in zip(sent, senders, strict=True):
            of_use = grad.dtype == torch.float32 and grad.is_contiguous()
            state.out = grad if of_use else None
        values = [g.float().contiguous() for g in sent]
        means, everyone = self._channel.exchange(
            self.compressor, values, senders, healthy=healthy, where=where
        )
        for state in senders:
            state.out = None
        if everyone and as_one:
            _share_out(self._whole, states, grads)
        if everyone:
            for grad, mean in zip(sent, means, strict=True):
                if mean.data_ptr() != grad.data_ptr():
                    grad.copy_(mean)
        elif not self.not_finite:
            # Where the compressor looked, the gradients are as they were.
            self._name(_not_finite(grads, states) if looks else ill)
        return everyone

    def _name(self, ill: list[str]) -> None:
        """Tell every rank whose gradients are not finite; a collective call."""
        wire = self._channel.wire
        told: list[list[str]] = [[] for _ in range(wire.ranks)]
        distributed.all_gather_object(told, ill, group=wire.group)
        self.not_finite = {rank: names for rank, names in enumerate(told) if names}
        warnings.warn(
            f"{named(self.not_finite)}; they are NaN on every rank now",
            NonFiniteGradientWarning,
            stacklevel=2,
        )


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
    if _is_masked(made) and not needed_gradients(model.module):
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


def _is_finite(values: Tensor) -> bool:
    """Whether all values are; a sum that overflows is looked at again."""
    return bool(values.sum().isfinite()) or all(
        bool(end.isfinite()) for end in values.aminmax()
    )


def _not_finite(grads: list[Tensor], states: list[State]) -> list[str]:
    """Names of the gradients that are not finite."""
    each = zip(grads, states, strict=True)
    return [state.name for grad, state in each if not grad.isfinite().all()]


def _together(states: list[State], grads: list[Tensor]) -> dict[str, Tensor]:
    """What the gradients of a bucket remember, one after the other, as one tensor a name."""
    found: dict[str, Tensor] = {}
    for name in {name for state in states for name in state.tensors}:
        parts = [
            state.tensors[name].flatten()
            if name in state.tensors
            else torch.zeros(grad.numel(), device=grad.device)
            for state, grad in zip(states, grads, strict=True)
        ]
        memory, end = parts[0].untyped_storage().data_ptr(), parts[0].storage_offset()
        adjoining = True
        for part in parts:
            adjoining &= part.untyped_storage().data_ptr() == memory
            adjoining &= part.storage_offset() == end
            end += len(part)
        size = sum(len(part) for part in parts)
        found[name] = (
            parts[0].as_strided((size,), (1,)) if adjoining else torch.cat(parts)
        )
    return found


def _share_out(whole: State, states: list[State], grads: list[Tensor]) -> None:
    """Give every gradient its part of what a bucket remembers, and count the step."""
    sizes = [grad.numel() for grad in grads]
    for state in states:
        state.step += 1
    for name, flat in whole.tensors.items():
        for state, grad, part in zip(states, grads, flat.split(sizes), strict=True):
            state.tensors[name] = part.view(grad.shape)
    whole.tensors = {}


def _refused(model: nn.Module) -> str:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kind = type(model).__name__
    if kind == "DeepSpeedEngine":
        return (
            "compress_hook: DeepSpeedEngine reduces gradients by collectives of its own "
            "and takes no such hook; use DistributedDataParallel, with "
            "ZeroRedundancyOptimizer for what ZeRO stage 1 saves"
        )
    if isinstance(model, (FSDPModule, FullyShardedDataParallel)):
        return (
            f"compress_hook: {kind} is sharded (FSDP), reduces gradients by a scatter of "
            "its own and takes no such hook; use DistributedDataParallel"
        )
    return f"compress_hook: {kind} is no DistributedDataParallel; wrap the model first"


def _is_masked(compressor: Compressor) -> bool:
    return isinstance(compressor, Masked)
