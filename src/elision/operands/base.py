"""Transforms: the change made to one operand before a product reads it.

A :class:`Transform` is data: a frozen dataclass of its parameters, equal to every other
of its class with the same parameters. Its memory between steps (a threshold, a reference)
lives in *state* tensors, which the layer owns as buffers, so that a state dict holds them
and a resumed run continues where it stopped.

Transforms without state are plain tensor code. A transform with state runs as the torch
operator ``elision::transform``, which declares that it writes the state; so
``torch.compile`` keeps the whole layer, backward included, in one graph. The graph holds
the transform by a *handle*, a text that belongs to one instance alone.

Where a transform rounds or selects, the gradient of its operand passes as if it were not
there: the products read its result, and what they give for the operand is the operand's
gradient (straight-through). A transform with a gradient of its own
(:attr:`Transform.own_gradient`) is applied in front of the products instead, where
autograd sees it.
"""

import dataclasses
import itertools
import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from elision.operands.blocked_form import BlockedForm

__all__ = ["KEEP", "Keep", "Transform", "density", "share_of"]

State = dict[str, Tensor]


def density(x: Tensor) -> float:
    """Fraction of the values of ``x`` that are not zero; 0 for an empty tensor."""
    return torch.count_nonzero(x).item() / x.numel() if x.numel() else 0.0


def share_of(share: float, size: int) -> int:
    """``ceil(share·size)``, at least 1, blind to the rounding of ``share`` itself."""
    return max(1, math.ceil(round(share * int(size), 6)))


class _Handles(weakref.WeakValueDictionary[str, "Transform"]):
    """Living transforms by handle."""

    def __getitem__(self, key: str) -> "Transform":
        try:
            return super().__getitem__(key)
        except KeyError:
            raise RuntimeError(
                f"no transform {key!r} in this process: a compiled graph runs where it "
                "was compiled, while its elided model exists"
            ) from None


class Transform(ABC):
    """A change of one operand, such as keeping its largest values.

    A member is a frozen dataclass of its parameters.

    Example:
        >>> from elision.operands import TopK
        >>> x = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
        >>> TopK(0.5)(x, [], training=True).tolist()
        [[3.0, 0.0], [0.0, -4.0]]
    """

    #: True if values are set to zero, so that a product may leave their work out.
    sparsifies: ClassVar[bool] = False

    #: True if :meth:`wanted_gradient` may name a part of the weight gradient.
    limits_gradient: ClassVar[bool] = False

    #: True if :meth:`reused` may return a part that all examples share.
    reuses: ClassVar[bool] = False

    #: Whether :meth:`apply` writes the state in training; a rule may write it otherwise.
    writes_state: ClassVar[bool] = True

    #: True if each value of the result follows from the value in its place alone.
    pointwise: ClassVar[bool] = False
    #: False if the result does not depend on which axis of the operand is which.
    reads_axes: ClassVar[bool] = True
    #: True if the operand's gradient is not the result's: :meth:`differentiable` is
    #: applied in front of the products, once for both that read the operand.
    own_gradient: ClassVar[bool] = False

    #: Names of the state tensors, in order.
    state_names: tuple[str, ...]

    _by_token: ClassVar[_Handles] = _Handles()
    _serial: ClassVar[Iterator[int]] = itertools.count()
    _token: str

    def __post_init__(self) -> None:
        self.check()
        # Kept beside the fields: neither may be computed while torch.compile traces.
        # The number makes the handle this instance's; the text lets a graph that was
        # saved by another process find no transform rather than a different one.
        object.__setattr__(self, "_token", f"{next(self._serial)} {self!r}")
        object.__setattr__(self, "state_names", tuple(self.initial_state()))
        self._by_token[self._token] = self

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild through the constructor, which gives the copy a handle of its own."""
        return _rebuilt, (type(self), self.parameters())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Drop an inherited blocked form where ``apply`` is another one."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__
        if "apply" in own and "blocked_form" not in own:
            cls.blocked_form = Transform.blocked_form

    def parameters(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        return {f.name: getattr(self, f.name) for f in fields if f.init}

    def check(self) -> None:  # noqa: B027 - nothing to check is a valid answer
        """Raise ValueError where a parameter is out of its range."""

    def initial_state(self) -> State:
        """State tensors before the first step, by name; empty if there is none.

        A state tensor whose shape follows the operand starts with no elements; the layer
        gives it the shape that :meth:`state_shapes` names. One that follows an input or a
        gradient is no buffer, and no average of the model touches it.
        """
        return {}

    def state_at(self, place: str) -> State:
        """State tensors before the first step of one use in a model.

        Those of :meth:`initial_state`, with other values where two places must differ.

        Args:
            place: name of the layer and of the use.
        """
        del place
        return self.initial_state()

    def state_shapes(self, operand_shape: torch.Size) -> dict[str, torch.Size]:
        """Shapes of the state tensors that follow the operand's."""
        del operand_shape
        return {}

    @abstractmethod
    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        """The operand that the product reads in place of ``x``, same shape and dtype.

        A function of the operand and the state alone: where a forward pass is computed
        again, this is called again with copies of the state it had.

        Args:
            x: the operand in torch layout.
            state: the state tensors, written in place; untouched unless ``training``.
            training: whether this is a step of training.
        """

    def differentiable(self, x: Tensor, state: State, training: bool) -> Tensor:
        """The result of :meth:`apply` as autograd differentiates it.

        The gradient passes unchanged unless a transform with :attr:`own_gradient` says
        another one; that may also be one of a state tensor, which the optimiser trains.
        Args are those of :meth:`apply`.

        Example:
            >>> from elision.operands import TopK
            >>> x = torch.tensor([3.0, -1.0], requires_grad=True)
            >>> TopK(0.5).differentiable(x, {}, True).sum().backward()
            >>> x.grad.tolist()
            [1.0, 1.0]
        """
        return _StraightThrough.apply(x, self, state, training)  # pyright: ignore[reportReturnType]

    def work(self, result: Tensor, state: State) -> float:
        """Fraction of a product's multiplications that this operand leaves to do.

        Realised, not intended: the density of the result for a transform that
        sparsifies, 1 for one that does not.
        """
        del state
        return density(result) if self.sparsifies else 1.0

    def shared(self, state: State) -> Tensor | None:
        """The part that all examples of the last result share, or None.

        Of the operand's shape with one example. A machine computes the product of this
        part once a batch; the remaining part is sparse.
        """
        del state
        return None

    @property
    def number_format(self) -> str:
        """Number format of the result, a name of :data:`elision.formats.FORMATS`."""
        return "fp32"

    def gradient_work(self, state: State) -> float:
        """Fraction of the weight gradient's values that training needs.

        For the transform of a weight: 1 where every weight learns, less where a mask
        keeps most of them from learning.
        """
        del state
        return 1.0

    def wanted_gradient(self, state: State) -> Tensor | None:
        """Places where training needs the weight gradient (not zero); None: everywhere.

        For the transform of a weight that sets :attr:`limits_gradient`; an engine may
        leave the other places out, as zeros.
        """
        del state
        return None

    def reused(self, state: State) -> Tensor | None:
        """A copy of the part that the next result repeats for every example, or None.

        For a transform that sets :attr:`reuses`. The result minus this part is zero in
        most places.
        """
        del state
        return None

    def blocked_form(self) -> BlockedForm | None:
        """The rule that an engine may apply in its own layout; None if there is none.

        A subclass that defines ``apply`` inherits no form: it states its own.
        """
        return None

    def of_runs(
        self, x: Tensor, sizes: Sequence[int], state: list[Tensor], training: bool
    ) -> Tensor:
        """What :meth:`__call__` makes of each run of rows by itself, one after the other.

        Args:
            x: ``(rows, columns)``.
            sizes: rows of each run, not negative, which add up to those of ``x``.
            state: as for a call.
            training: likewise.

        Example:
            >>> from elision.operands import TopK
            >>> x = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
            >>> TopK(0.5).of_runs(x, [1, 1], [], True).tolist()
            [[3.0, 0.0], [0.0, -4.0]]
        """
        if len(sizes) == 1:
            return self(x, state, training)
        return torch.cat([self(run, state, training) for run in x.split([*sizes])])

    @abstractmethod
    def __str__(self) -> str:
        """The transform in a few words, for a recipe's table."""

    def __call__(self, x: Tensor, state: list[Tensor], training: bool) -> Tensor:
        """Apply, through the torch operator if there is state to write."""
        if not state:
            return self.apply(x, {}, training)
        return torch.ops.elision.transform(x, state, self._token, training)


class _StraightThrough(torch.autograd.Function):
    """A transform whose gradient passes unchanged."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, transform: Transform, state: State, training: bool
    ) -> Tensor:
        del ctx
        result = transform(x, list(state.values()), training)
        return x.clone() if result is x else result

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None, None]:
        del ctx
        return grad, None, None, None


def _rebuilt(kind: type[Transform], parameters: dict[str, Any]) -> Transform:
    return kind(**parameters)


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
    """The operand as it is.

    Example:
        >>> Keep()(torch.ones(2), [], training=True).tolist()
        [1.0, 1.0]
    """

    pointwise = True
    reads_axes = False

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        return x

    def __str__(self) -> str:
        return "keep"


#: The operand as it is.
KEEP = Keep()
