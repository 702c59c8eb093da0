"""Sites of a network that is trained: where a step's bits are, and when they are struck.

A step has three moments: before the forward pass, before the optimiser reads the
gradients, and after it has written. A site strikes what is there at its moment, or what
passes by in between.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from elision.common.names import lookup
from elision.faults.draw import Hits, Place, Reach, places_of
from elision.faults.fault import Fault
from elision.faults.outputs import outputs_shown
from elision.faults.sites import weights_of
from elision.faults.stored import Stored, stored_as
from elision.layers.reach import elidable_layers
from elision.memory import Policy
from elision.memory.policies.forwarding import Forwarding
from elision.memory.saved.codec import Packed
from elision.memory.saved.roles import Slot
from elision.training.parallel import Compressor, State, emulate

__all__ = ["TRAINING_SITES", "TrainingSite", "check_training_site", "struck_values"]


class TrainingSite:
    """One site in one training.

    Attributes:
        struck: faults so far.
    """

    def __init__(self, fault: Fault, generator: torch.Generator) -> None:
        self.fault, self._generator = fault, generator
        self._fixed: list[Hits] | None = None
        self.active = False
        self.struck = 0

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        """Take the model and the optimiser; what is hung in is undone by ``stack``."""

    def before_pass(self) -> None:
        """The step begins; the forward pass comes next."""

    def before_update(self) -> None:
        """The gradients are there; the optimiser comes next."""

    def after_update(self) -> None:
        """The optimiser has written."""

    def _drawn(self, reach: Reach) -> list[Hits]:
        """The faults of this step; the same in every step if they are permanent."""
        if self._fixed is not None:
            return self._fixed
        number = reach.number(self._generator)
        hits = reach.drawn(self._generator, number)
        self.struck += number
        if self.fault.lifetime == "permanent":
            self._fixed = hits
        return hits


def struck_values(x: Tensor, hits: Iterable[Hits], fault: Fault) -> Tensor:
    """``x`` with faults in its stored form; values that no fault reaches keep their bits.

    Args:
        x: dense real values.
        hits: bits that change.
        fault: format, storage and action.

    Example:
        >>> x = torch.tensor([1.0, 0.3])
        >>> hit = Hits(Place("", "values", 2, 8), torch.tensor([0]), torch.tensor([6]))
        >>> struck_values(x, [hit], Fault(format="int8"))
        tensor([0.4961, 0.3000])
    """
    held: Stored = stored_as(x, fault.format, fault.storage)
    after = held
    for hit in hits:
        after = after.changed(hit.place.part, hit.index, hit.bit, fault.action)
    if fault.format is None and fault.storage == "dense":
        return after.values()
    golden, new = held.values(), after.values()
    same = (golden == new) | (golden.isnan() & new.isnan())
    return torch.where(same, x, new)


class _AtRest(TrainingSite):
    """Tensors that wait between steps."""

    def _tensors(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def _strike(self) -> dict[str, Tensor]:
        """Strike; the tensors that were, as they had been."""
        held = {
            name: x
            for name, x in self._tensors().items()
            if x.is_floating_point() and self.fault.selects(name)
        }
        stored = {
            n: stored_as(x.detach(), self.fault.format, self.fault.storage)
            for n, x in held.items()
        }
        before: dict[str, Tensor] = {}
        by_name: dict[str, list[Hits]] = {}
        for hit in self._drawn(Reach(self.fault, places_of(stored, self.fault))):
            by_name.setdefault(hit.place.name, []).append(hit)
        with torch.no_grad():
            for name, hits in by_name.items():
                before[name] = held[name].detach().clone()
                held[name].copy_(struck_values(before[name], hits, self.fault))
        return before


class Weights(_AtRest):
    """Weights before the forward pass; after a transient fault, as they were.

    A weight that stays struck is what the optimiser goes on from.
    """

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        self._weights = weights_of(model)
        self._before: dict[str, Tensor] = {}

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self._weights)

    def before_pass(self) -> None:
        if self.active:
            self._before = self._strike()

    def before_update(self) -> None:
        if self.fault.lifetime == "transient":
            with torch.no_grad():
                for name, value in self._before.items():
                    self._weights[name].copy_(value)
        self._before = {}


class WeightGradients(_AtRest):
    """Gradients of parameters, by the name of the parameter, before the optimiser.

    A step that has none, such as that in which RigL moves its masks, is not struck.
    """

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        self._named = list(model.named_parameters())

    def _tensors(self) -> dict[str, Tensor]:
        return {n: p.grad for n, p in self._named if p.grad is not None}

    def before_update(self) -> None:
        if self.active and self._tensors():
            self._strike()


class OptimizerState(_AtRest):
    """The optimiser's state, ``<parameter>.<name>``, after it has written."""

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        self._optimizer, self._named = optimizer, list(model.named_parameters())

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value
            for name, parameter in self._named
            for key, value in self._optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor) and value.ndim
        }

    def after_update(self) -> None:
        if self.active:
            if not self._tensors():
                raise ValueError(
                    f"Fault(site='optimizer'): {type(self._optimizer).__name__} as it is "
                    "set up here has no state; use momentum or Adam"
                )
            self._strike()


class ErrorMemory(_AtRest):
    """What a recipe remembers in its layers: buffers and attributes ``elision_*``."""

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        self._model = model

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}".lstrip("."): value
            for name, module in self._model.named_modules()
            for key, value in (vars(module) | dict(module._buffers)).items()
            if key.startswith("elision_")
            and isinstance(value, Tensor)
            and value.numel() > 1
        }

    def after_update(self) -> None:
        if self.active:
            if not any(x.is_floating_point() for x in self._tensors().values()):
                raise ValueError(
                    "Fault(site='error-memory'): the recipe remembers no values"
                )
            self._strike()


class _Passing(TrainingSite):
    """Tensors that are there only while a step runs.

    Which there will be is known from the step before, so the first step is never struck
    by a given number of faults; a rate needs no such knowledge.
    """

    def __init__(self, fault: Fault, generator: torch.Generator) -> None:
        super().__init__(fault, generator)
        self._known: list[Place] = []
        self._now: list[Place] = []
        self._hits: dict[str, list[Hits]] = {}
        self._calls: dict[str, int] = {}

    def before_pass(self) -> None:
        """Draw among the tensors of the step before."""
        if self._now:
            self._known, self._now = self._now, []
        self._calls.clear()
        self._hits = {}
        if self.active and self._known and self.fault.rate is None:
            for hit in self._drawn(Reach(self.fault, self._known)):
                self._hits.setdefault(hit.place.name, []).append(hit)

    def _pass(self, name: str, x: Tensor) -> Tensor:
        """A tensor comes by: struck, or as it is."""
        self._calls[name] = self._calls.get(name, 0) + 1
        name = f"{name}#{self._calls[name]}"
        width = stored_as(x.new_zeros(1), self.fault.format).parts["values"].bits
        place = Place(name, "values", x.numel(), width)
        self._now.append(place)
        if not self.active:
            return x
        hits = self._hits.get(name, [])
        if self.fault.rate is not None:
            hits = self._drawn(Reach(self.fault, [place]))
        hits = [h for h in hits if h.place.words == x.numel()]
        return struck_values(x, hits, self.fault) if hits else x


class _Replaced(torch.autograd.Function):
    """A struck value in place of another; the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, struck: Tensor) -> Tensor:
        return struck.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _OfOutputs(_Passing):
    """Something of the outputs of layers."""

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        layers = {
            n: m for n, m in elidable_layers(model).items() if self.fault.selects(n)
        }
        self._model = model
        stack.enter_context(outputs_shown(layers, self._see))

    def _see(self, name: str, output: Any) -> Any:
        raise NotImplementedError


class Outputs(_OfOutputs):
    """Outputs of layers in the forward pass."""

    def _see(self, name: str, output: Any) -> Any:
        if not self._model.training or not isinstance(output, Tensor):
            return None
        before = output.detach()
        struck = self._pass(name, before)
        return None if struck is before else _Replaced.apply(output, struck)


class Gradients(_OfOutputs):
    """Gradients of layers' outputs in the backward pass."""

    def _see(self, name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad and self._model.training:
            output.register_hook(lambda g: self._pass(name, g))


class _StruckPolicy(Forwarding):
    """Another policy, whose codecs' packed bytes are struck."""

    def __init__(self, inner: Policy, see: Callable[[str, Packed], Packed]) -> None:
        super().__init__(inner)
        self._see = see

    def packed(self, slot: Slot, packed: Packed) -> Packed:
        return self._see(slot.module or "model", super().packed(slot, packed))


class Saved(_Passing):
    """Packed bytes of activations that a policy keeps for the backward pass."""

    def policy(self, inner: Policy) -> Policy:
        """The policy, with packed bytes that are struck."""
        return _StruckPolicy(inner, self._packed)

    def _packed(self, name: str, packed: Packed) -> Packed:
        if not self.fault.selects(name):
            return packed
        payload = tuple(
            self._pass(name, part) if _has_words(part) else part
            for part in packed.payload
        )
        return replace(packed, payload=payload)


def _has_words(part: Tensor) -> bool:
    return part.layout == torch.strided and part.numel() > 0 and not part.is_complex()


class Messages(_Passing):
    """Bytes of the messages by which gradients would travel, before the optimiser.

    Every gradient goes through a compressor in this process; the bytes that one rank
    sends are struck, and what arrives is the gradient.
    """

    #: How gradients travel; None: as they are.
    compressor: Compressor | None = None

    def attach(self, model: nn.Module, optimizer: Optimizer, stack: ExitStack) -> None:
        self._named = list(model.named_parameters())
        self._states = {n: State(name=n) for n, _ in self._named}

    def before_update(self) -> None:
        with torch.no_grad():
            for name, parameter in self._named:
                grad = parameter.grad
                if grad is None or not self.fault.selects(name):
                    continue
                if self.compressor is None:
                    grad.copy_(self._pass(name, grad))
                    continue
                struck = _struck_compressor(self.compressor, name, self._pass)
                value = grad.float().contiguous()
                mean, _ = emulate(struck, [value], [self._states[name]])
                grad.copy_(mean)


def _struck_compressor(
    compressor: Compressor, name: str, see: Callable[[str, Tensor], Tensor]
) -> Compressor:
    """A compressor whose messages are struck on their way."""

    class Struck:
        def __getattr__(self, attribute: str) -> Any:
            return getattr(compressor, attribute)

        def exchange(self, tensor: Tensor, state: State) -> Iterator[Any]:
            running = compressor.exchange(tensor, state)
            message = next(running)
            while True:
                parts = tuple(see(name, part) for part in message.parts)
                reply = yield replace(message, parts=parts)
                try:
                    message = running.send(reply)
                except StopIteration as stop:
                    return stop.value

    return Struck()  # pyright: ignore[reportReturnType]


#: Sites of :data:`elision.faults.fault.SITES` while a network is trained.
TRAINING_SITES: dict[str, type[TrainingSite]] = {
    "weight": Weights,
    "scale": Weights,
    "index": Weights,
    "bitmap": Weights,
    "activation": Outputs,
    "gradient": Gradients,
    "weight-gradient": WeightGradients,
    "optimizer": OptimizerState,
    "error-memory": ErrorMemory,
    "saved": Saved,
    "message": Messages,
}


def check_training_site(name: str) -> None:
    """Raise ValueError, with the known ones, unless a training has such a site.

    Example:
        >>> check_training_site("gradients")
        Traceback (most recent call last):
        ValueError: unknown site of a training 'gradients' (did you mean 'gradient'?); \
known: weight, scale, index, bitmap, activation, gradient, weight-gradient, optimizer, \
error-memory, saved, message
    """
    lookup("site of a training", name, TRAINING_SITES)
