"""Forward passes that are computed again for the backward pass (activation checkpointing).

A forward pass that runs inside a backward pass is a *recomputation*: it reads what the
first one read, moves no state and shows no forward product to observers, so that a step
with ``torch.utils.checkpoint``, in either form, nested or selective, is the step without.
A layer whose forward pass writes state therefore keeps, for its latest calls, the state
from before, and computes a recomputed call from that.

What tells a recomputation is where it runs, not who asked for it. A new forward pass that
somebody starts inside a backward pass (in a hook, for a gradient penalty) is one as well:
it moves no state, and reads that of the layer's latest call.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from elision.engines.native.blocked.tensor import BlockedTensor

__all__ = ["OWN_PRODUCTS", "LatestCalls", "States", "is_recomputation", "unseen"]

#: State tensors of each use, by name.
States = dict[str, dict[str, Tensor]]


def is_recomputation() -> bool:
    """Whether this code runs inside a backward pass, on this thread."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def unseen() -> Iterator[None]:
    """Context manager: hide bookkeeping from dispatch modes.

    Selective checkpointing counts the operators of both passes; only those of the
    products may be among them.
    """
    if not torch._C._len_torch_dispatch_stack():
        yield
        return
    with _disable_current_modes():
        yield


class _OwnProducts(threading.local):
    """Context manager: an elided layer computes on this thread; ``bool`` says whether."""

    depth = 0

    def __enter__(self) -> Self:
        self.depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.depth -= 1

    def __bool__(self) -> bool:
        return self.depth > 0


#: Entered while an elided layer runs its products; what watches operators leaves these out.
OWN_PRODUCTS = _OwnProducts()


class LatestCalls:
    """State that a layer's latest forward passes read, told apart by their inputs.

    Copies and pickles start without any.

    Args:
        uses: names of the uses whose state a forward pass writes.

    Example:
        >>> calls = LatestCalls(("weight_for_forward",))
        >>> for step in (0, 1):
        ...     state = {"weight_for_forward": {"step": torch.tensor(step)}}
        ...     calls.remember(torch.full((2, 3), float(step)), state)
        >>> calls.recalled(torch.zeros(2, 3), state)
        {'weight_for_forward': {'step': tensor(0)}}
    """

    #: Calls kept: layers that a step calls more often than this, in checkpointed
    #: regions, find the state of a later call (an own choice).
    KEPT = 64

    def __init__(self, uses: tuple[str, ...]) -> None:
        self._uses = uses
        self._calls: deque[tuple[Tensor, States]] = deque(maxlen=self.KEPT)

    def __reduce__(self) -> tuple[Any, ...]:
        return LatestCalls, (self._uses,)

    @torch.no_grad()
    def remember(self, x: Tensor, states: States) -> None:
        """Keep the state before a forward pass.

        Args:
            x: the layer's input.
            states: state tensors of each use.
        """
        with unseen():
            self._calls.append((_excerpt(x), self._copied(states)))

    @torch.no_grad()
    def recalled(self, x: Tensor, states: States) -> States:
        """State of the uses that a forward pass writes, for a recomputation to write.

        Args:
            x: the layer's input.
            states: the state as it is now, for a layer without a call.
        """
        with unseen():
            excerpt = _excerpt(x)
            known = [kept for seen, kept in self._calls if _same(seen, excerpt)]
            latest = known or [kept for _, kept in self._calls] or [states]
            return self._copied(latest[-1])

    def _copied(self, states: States) -> States:
        return {
            use: {
                # What is trained stays, as its gradient is the tensor's own.
                name: value if value.requires_grad else value.clone()
                for name, value in states[use].items()
            }
            for use in self._uses
        }


def _excerpt(x: Tensor) -> Tensor:
    """The first example's values at one place of the image, ``(C,)``; a row's, all."""
    x = x.detach()
    if x.dim() == 2:
        return x[0].clone()
    place = [size // 2 for size in x.shape[2:]]
    if isinstance(x, BlockedTensor):
        return x.storage_.value.blocked()[0, :, *place, 0].clone()
    return x[0, :, *place].clone()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
