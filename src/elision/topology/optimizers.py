"""The optimisers that take the steps, inside what is wrapped around them.

An optimiser that holds another one of its own parameters is a wrapper (sharpness-aware
minimisation, Lookahead, ``ZeroRedundancyOptimizer``, Accelerate): what it holds takes the
steps, and torch's hooks run there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Stepper", "runs_hooks", "steppers"]


@dataclass(frozen=True)
class Stepper:
    """An optimiser that takes steps, and the wrappers around it.

    Attributes:
        inner: the optimiser whose ``step`` changes weights.
        wrappers: what holds it, outermost first.
        alone: those of them that hold no other.

    Example:
        >>> optimizer = torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=0.1)
        >>> [stepper.inner is optimizer for stepper in steppers(optimizer)]
        [True]
    """

    inner: torch.optim.Optimizer
    wrappers: tuple[Any, ...] = ()
    alone: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Classes, outermost first: ``Lookahead(SGD)``."""
        names = [type(each).__name__ for each in (*self.wrappers, self.inner)]
        return "(".join(names) + ")" * len(self.wrappers)

    def all(self) -> tuple[Any, ...]:
        """The optimiser and its wrappers."""
        return (self.inner, *self.wrappers)

    def owned(self) -> set[int]:
        """Parameters by ``id``, those included that other processes step (sharded)."""
        return _owned(self.inner).union(*map(_owned, self.alone))

    def stepped(self) -> set[int]:
        """Parameters by ``id`` that this process steps."""
        return _owned(self.inner)

    @property
    def is_sharded(self) -> bool:
        """Whether other processes step some of the parameters.

        What they step is here when the wrapper's step ends, and no sooner.
        """
        return self.owned() != self.stepped()

    def states(self, parameter: Tensor) -> Iterator[dict[str, Any]]:
        """What the optimiser and its wrappers keep for a parameter."""
        for each in self.all():
            known = vars(each).get("state")  # a wrapper may show its inner one's
            if isinstance(known, Mapping) and parameter in known:
                yield known[parameter]

    def was_skipped(self) -> bool:
        """Whether a fused optimiser leaves this step out for ``GradScaler``."""
        found = (getattr(each, "found_inf", None) for each in self.all())
        return any(bool(each) for each in found if each is not None)


def steppers(optimizer: Any) -> list[Stepper]:
    """Who takes the steps of an optimiser: itself, or what it wraps.

    Args:
        optimizer: an optimiser, a wrapper of one or several, or a sequence of these.

    Raises:
        TypeError: something that is no optimiser and wraps none.
        ValueError: an optimiser that runs no hooks of torch.
    """
    if isinstance(optimizer, (list, tuple)):
        return [stepper for each in optimizer for stepper in steppers(each)]
    return list(_unwrapped(optimizer, (), ()))


def runs_hooks(optimizer: Any) -> bool:
    """Whether the steps of an optimiser run the hooks of torch."""
    hooked = getattr(getattr(type(optimizer), "step", None), "hooked", False)
    return isinstance(optimizer, torch.optim.Optimizer) and hooked


def _unwrapped(
    optimizer: Any, wrappers: tuple[Any, ...], alone: tuple[Any, ...]
) -> Iterator[Stepper]:
    around = (*wrappers, optimizer)
    held = [each for each in _held(optimizer) if all(each is not w for w in around)]
    if held:
        alone = (*alone, optimizer) if len(held) == 1 else ()
        for each in held:
            yield from _unwrapped(each, around, alone)
        return
    _check_hooks(optimizer, wrappers)
    yield Stepper(optimizer, wrappers, alone)


def _held(optimizer: Any) -> list[Any]:
    """Optimisers among the attributes of one that have parameters of its own."""
    own = _owned(optimizer)
    found: list[Any] = []
    for value in getattr(optimizer, "__dict__", {}).values():
        if isinstance(value, Mapping):
            value = list(value.values())
        for each in value if isinstance(value, Sequence) else (value,):
            if _is_optimizer(each) and (not own or own & _owned(each)):
                found += [each] if all(each is not known for known in found) else []
    return found


def _is_optimizer(value: Any) -> bool:
    if isinstance(value, (str, bytes, Tensor, torch.nn.Module)):
        return False
    return callable(getattr(value, "step", None)) and hasattr(value, "param_groups")


def _owned(optimizer: Any) -> set[int]:
    groups = getattr(optimizer, "param_groups", None) or ()
    return {id(p) for group in groups for p in group["params"]}


def _check_hooks(optimizer: Any, wrappers: tuple[Any, ...]) -> None:
    kind = type(optimizer).__name__
    inside = f" inside {type(wrappers[0]).__name__}" if wrappers else ""
    if not _is_optimizer(optimizer):
        raise TypeError(
            f"attach needs an optimiser of torch.optim or a wrapper of one, got {kind}"
        )
    if not runs_hooks(optimizer):
        raise ValueError(
            f"{kind}{inside} runs no step hooks of torch.optim.Optimizer, by which masks "
            "follow its steps; attach to an optimiser that does"
        )
