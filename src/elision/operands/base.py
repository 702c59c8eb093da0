"""What may be done to one operand before a product reads it.

A :class:`Transform` is data: a frozen dataclass that says what happens, equal to every
other with the same parameters. What it must remember between steps (a threshold, a
reference) lives in *state* tensors, which the layer owns as buffers, so that a state dict
holds them and a resumed run goes on where it stopped.

Transforms without state are plain tensor code. One with state runs as the torch operator
``elision::transform``, which declares that it writes the state; so ``torch.compile``
keeps the whole layer, backward included, in one graph.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["KEEP", "Chain", "Keep", "Transform", "density", "fraction", "share_of"]

State = dict[str, Tensor]


def density(x: Tensor) -> float:
    """Fraction of the values of ``x`` that are not zero; 0 for an empty tensor."""
    return torch.count_nonzero(x).item() / x.numel() if x.numel() else 0.0


def share_of(share: float, size: int) -> int:
    """``ceil(share·size)``, at least 1, blind to the rounding of ``share`` itself."""
    return max(1, math.ceil(round(share * size, 6)))


def fraction(owner: str, name: str, value: float, *, one: bool = False) -> None:
    """Raise ValueError unless ``value`` lies in [0, 1), or in (0, 1] if ``one``."""
    allowed = "(0, 1]" if one else "[0, 1)"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 < value <= 1 if one else 0 <= value < 1):
        raise ValueError(f"{owner}({name}={value!r}): must be a number in {allowed}")


class Transform(ABC):
    """One thing done to one operand, such as keeping its largest values."""

    #: Whether values are set to zero, so that a product may leave their work out.
    sparsifies: ClassVar[bool] = False

    #: Names of the state tensors, in order.
    state_names: tuple[str, ...]

    _by_token: ClassVar[dict[str, "Transform"]] = {}
    _token: str

    def __post_init__(self) -> None:
        self.check()
        # Kept beside the fields: neither may be computed while torch.compile traces.
        object.__setattr__(self, "_token", repr(self))
        object.__setattr__(self, "state_names", tuple(self.initial_state()))
        self._by_token[self._token] = self

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild through the constructor, which registers the copy's token."""
        values = [getattr(self, f.name) for f in dataclasses.fields(self)]  # pyright: ignore[reportArgumentType]
        return type(self), tuple(values)

    def check(self) -> None:  # noqa: B027 - nothing to check is a valid answer
        """Raise ValueError where a parameter is out of its range."""

    def initial_state(self) -> State:
        """State tensors before the first step, by name; empty if there is none.

        A state tensor whose shape follows the operand starts with no elements; the layer
        gives it the shape :meth:`state_shapes` names.
        """
        return {}

    def state_shapes(self, operand_shape: torch.Size) -> dict[str, torch.Size]:
        """Shapes of the state tensors that follow the operand's."""
        del operand_shape
        return {}

    @abstractmethod
    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        """Return what the product reads in place of ``x``, same shape and dtype.

        Args:
            x: the operand in torch layout.
            state: the state tensors, written in place; untouched unless ``training``.
            training: whether this is a step of training.
        """

    def work(self, result: Tensor, state: State) -> float:
        """Fraction of a product's multiplications that this operand leaves to do.

        Realised, not intended: the density of the result for a transform that
        sparsifies, 1 for one that does not.
        """
        del state
        return density(result) if self.sparsifies else 1.0

    def shared(self, state: State) -> Tensor | None:
        """What all examples of the last result have in common, if that is known.

        Of the operand's shape with one example. A machine computes its product once a
        batch and has the rest of the result, which is sparse, left to multiply.
        """
        del state
        return None

    def gradient_work(self, state: State) -> float:
        """Fraction of the weight gradient's values that is asked for.

        For the transform of a weight: 1 where every weight learns, less where a mask
        keeps most of them from learning.
        """
        del state
        return 1.0

    def wanted_gradient(self, state: State) -> Tensor | None:
        """Where the weight gradient is asked for (not zero there); None: everywhere.

        For the transform of a weight; an engine may leave the rest out, as zeros.
        """
        del state
        return None

    def reused(self, state: State) -> Tensor | None:
        """What the next result repeats for every sample of the batch, a copy; or None.

        The result less this is what was added, zero in most places.
        """
        del state
        return None

    @abstractmethod
    def __str__(self) -> str:
        """A few words for a recipe's table."""

    def __call__(self, x: Tensor, state: list[Tensor], training: bool) -> Tensor:
        """Apply, through the torch operator if there is state to write."""
        if not state:
            return self.apply(x, {}, training)
        return torch.ops.elision.transform(x, state, self._token, training)


@torch.library.custom_op("elision::transform", mutates_args=("state",))
def _transform(x: Tensor, state: list[Tensor], token: str, training: bool) -> Tensor:
    transform = Transform._by_token[token]
    named = dict(zip(transform.state_names, state, strict=True))
    result = transform.apply(x, named, training)
    # The operator promises fresh memory in the layout of empty_like(x).
    promised = torch.empty_like(x)
    return promised.copy_(result) if _differs(result, promised, x) else result


def _differs(result: Tensor, promised: Tensor, x: Tensor) -> bool:
    return result is x or result.stride() != promised.stride()


@_transform.register_fake
def _(x: Tensor, state: list[Tensor], token: str, training: bool) -> Tensor:
    del state, token, training
    return torch.empty_like(x)


@dataclass(frozen=True)
class Keep(Transform):
    """The operand as it is."""

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        return x

    def __str__(self) -> str:
        return "keep"


#: The operand as it is.
KEEP = Keep()


@dataclass(frozen=True)
class Chain(Transform):
    """Several transforms, one after the other: ``Chain((first, then, ...))``."""

    links: tuple[Transform, ...]

    def check(self) -> None:
        if not self.links or not all(isinstance(t, Transform) for t in self.links):
            raise ValueError(f"Chain needs one or more transforms, got {self.links!r}")

    @property
    def sparsifies(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether any link does."""
        return any(link.sparsifies for link in self.links)

    def initial_state(self) -> State:
        return {
            f"{i}_{name}": value
            for i, link in enumerate(self.links)
            for name, value in link.initial_state().items()
        }

    def state_shapes(self, operand_shape: torch.Size) -> dict[str, torch.Size]:
        return {
            f"{i}_{name}": shape
            for i, link in enumerate(self.links)
            for name, shape in link.state_shapes(operand_shape).items()
        }

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        for i, link in enumerate(self.links):
            x = link.apply(x, self._state_of(i, state), training)
        return x

    def work(self, result: Tensor, state: State) -> float:
        """The smallest work of any link: later ones only ever add zeros."""
        works = (k.work(result, self._state_of(i, state)) for i, k in self._numbered())
        return min(works)

    def gradient_work(self, state: State) -> float:
        """The smallest of any link."""
        return min(
            k.gradient_work(self._state_of(i, state)) for i, k in self._numbered()
        )

    def _numbered(self) -> list[tuple[int, Transform]]:
        return list(enumerate(self.links))

    def _state_of(self, link: int, state: State) -> State:
        prefix = f"{link}_"
        own = {k: v for k, v in state.items() if k.startswith(prefix)}
        return {k.removeprefix(prefix): v for k, v in own.items()}

    def __str__(self) -> str:
        return ", then ".join(str(link) for link in self.links)
