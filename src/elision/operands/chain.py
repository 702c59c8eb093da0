"""Several transforms of one operand, one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.operands.base import State, Transform
from elision.operands.outputs_first import OutputsFirst

__all__ = ["Chain", "links_of"]


def links_of(transform: Transform, prefix: str = "") -> Iterator[tuple[str, Transform]]:
    """The transforms of a chain, each with what the names of its state begin with.

    A transform that is no chain is its own only link; of one that sees a turned weight,
    it is the transform inside.

    Example:
        >>> from elision.operands import Cast, Mask
        >>> [(prefix, str(link)) for prefix, link in links_of(Chain((Mask(), Cast("bf16"))))]
        [('0_', 'masked'), ('1_', 'bf16')]
    """
    if isinstance(transform, OutputsFirst):
        transform = transform.inner
    if not isinstance(transform, Chain):
        yield prefix, transform
        return
    for i, link in enumerate(transform.links):
        yield from links_of(link, f"{prefix}{i}_")


@dataclass(frozen=True)
class Chain(Transform):
    """Several transforms, one after the other: ``Chain((first, then, ...))``.

    Attributes:
        links: the transforms, in order; at least one.

    Example:
        >>> from elision.operands import Cast, TopK
        >>> print(Chain((TopK(0.9), Cast("bf16"))))
        top 0.1 by magnitude, then bf16
    """

    links: tuple[Transform, ...]

    def check(self) -> None:
        if not self.links or not all(isinstance(t, Transform) for t in self.links):
            raise ValueError(f"Chain needs one or more transforms, got {self.links!r}")

    @property
    def sparsifies(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if any link does."""
        return any(link.sparsifies for link in self.links)

    @property
    def limits_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if any link does."""
        return any(link.limits_gradient for link in self.links)

    @property
    def reuses(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if any link does."""
        return any(link.reuses for link in self.links)

    @property
    def pointwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if all links are."""
        return all(link.pointwise for link in self.links)

    @property
    def reads_axes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if any link does."""
        return any(link.reads_axes for link in self.links)

    @property
    def writes_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if any link that has state does."""
        return any(link.writes_state for link in self.links if link.state_names)

    @property
    def own_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if any link has one; the others then pass theirs through."""
        return any(link.own_gradient for link in self.links)

    @property
    def number_format(self) -> str:
        """That of the last link that has one of its own."""
        own = [link.number_format for link in self.links]
        return next((name for name in reversed(own) if name != "fp32"), "fp32")

    def initial_state(self) -> State:
        return {
            f"{i}_{name}": value
            for i, link in enumerate(self.links)
            for name, value in link.initial_state().items()
        }

    def state_at(self, place: str) -> State:
        return {
            f"{i}_{name}": value
            for i, link in enumerate(self.links)
            for name, value in link.state_at(f"{place}.{i}").items()
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

    def differentiable(self, x: Tensor, state: State, training: bool) -> Tensor:
        for i, link in enumerate(self.links):
            x = link.differentiable(x, self._state_of(i, state), training)
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

    def wanted_gradient(self, state: State) -> Tensor | None:
        """That of the link which limits the gradient."""
        for i, link in self._numbered():
            if link.limits_gradient:
                return link.wanted_gradient(self._state_of(i, state))
        return None

    def shared(self, state: State) -> Tensor | None:
        """The part that a link shares, as the links behind it leave it."""
        return self._behind(lambda link, own: link.shared(own), state)

    def reused(self, state: State) -> Tensor | None:
        """The part that a link repeats, as the links behind it leave it.

        None where one of these looks beyond a single value, as a scale does: what the
        result adds to the part would not be zero.
        """
        return self._behind(lambda link, own: link.reused(own), state)

    def _behind(
        self, part: Callable[[Transform, State], Tensor | None], state: State
    ) -> Tensor | None:
        for i, link in self._numbered():
            if not link.reuses:
                continue
            found = part(link, self._state_of(i, state))
            for behind in self.links[i + 1 :]:
                if found is None or not behind.pointwise:
                    return None
                found = behind.apply(found, {}, False)
            return found
        return None

    def _numbered(self) -> list[tuple[int, Transform]]:
        return list(enumerate(self.links))

    def _state_of(self, link: int, state: State) -> State:
        prefix = f"{link}_"
        own = {k: v for k, v in state.items() if k.startswith(prefix)}
        return {k.removeprefix(prefix): v for k, v in own.items()}

    def __call__(self, x: Tensor, state: list[Tensor], training: bool) -> Tensor:
        """Apply; as plain tensor code where no link writes its state."""
        if not state or self.writes_state:
            return super().__call__(x, state, training)
        named = dict(zip(self.state_names, state, strict=True))
        return self.apply(x, named, training)

    def __str__(self) -> str:
        return ", then ".join(str(link) for link in self.links)
