"""Replay: a step computed twice, and compared bit by bit before the optimiser writes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.restoring import Buffers

__all__ = ["Before", "Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """What a second computation of a step gave.

    Attributes:
        differs: names of what is not bit-equal: ``"result"``, gradients and buffers by
            their names, ``"random state"``.
        result: what the first computation returned.

    Example:
        >>> Replay((), None).ok
        True
    """

    differs: tuple[str, ...]
    result: Any

    @property
    def ok(self) -> bool:
        """Whether both computations gave the same bits."""
        return not self.differs


class Before:
    """Gradients, buffers and random state before a step, to begin it again from there.

    Any number of times: what is put back is a copy.

    Args:
        model: whose; None: the random state alone.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> before = Before(model)
        >>> _ = model(torch.randn(4, 2))
        >>> before.put_back("a step")
        >>> model.num_batches_tracked
        tensor(0)
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._random = torch.get_rng_state()
        self._parameters = {} if model is None else dict(model.named_parameters())
        self._grads = {
            n: None if p.grad is None else p.grad.clone()
            for n, p in self._parameters.items()
        }
        self._buffers = None if model is None else Buffers(model)

    def put_back(self, owner: str) -> None:
        """Put back all of it.

        Args:
            owner: for messages.

        Raises:
            RuntimeError: the step replaced parameters of the model.
        """
        torch.set_rng_state(self._random)
        if self._model is None or self._buffers is None:
            return
        self._buffers.put_back()
        now, before = dict(self._model.named_parameters()), self._parameters
        if now.keys() != before.keys() or any(now[n] is not before[n] for n in now):
            raise RuntimeError(f"{owner}: the step replaced parameters of the model")
        for name, parameter in now.items():
            grad = self._grads[name]
            parameter.grad = None if grad is None else grad.clone()


def replay(step: Callable[[], Any], model: nn.Module | None = None) -> Replay:
    """Compute a step twice from the same state and compare all that it left.

    A fault that no memory keeps (in a product, in a message) strikes one of the two. The
    second computation is what stays: gradients, buffers, random state.

    Args:
        step: forward and backward pass, without the optimiser's step; it returns the loss
            or anything that tensors compare in. It must read the same data both times.
        model: whose gradients and buffers are compared and put back in between. None:
            those gradients that the graph of the returned loss leads to; the step must
            clear them first, and buffers are not compared.

    Raises:
        RuntimeError: the step replaced parameters of the model.

    Example:
        >>> model, x = nn.Linear(3, 1), torch.ones(2, 3)
        >>> def step():
        ...     model.zero_grad()
        ...     loss = model(x).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> replay(step).ok, replay(step, model).ok
        (True, True)

    Source: deterministic replay before the optimiser's step, as torchtitan merged it in
    2026 (pull request 4334); here in one process.
    """
    before = Before(model)
    first = step()
    once = _left(model, first)
    before.put_back("replay")
    second = step()
    again = _left(model, second)
    differs = [] if _same(first, second) else ["result"]
    for name in sorted(once.keys() | again.keys()):
        if not _same(once.get(name), again.get(name)):
            differs.append(name)
    return Replay(tuple(differs), first)


def _left(model: nn.Module | None, result: Any) -> dict[str, Tensor]:
    """Copies of the gradients, the buffers and the random state after a step."""
    found = {"random state": torch.get_rng_state()}
    if model is None:
        named = ((f"gradient {k}", p) for k, p in enumerate(_leaves(result)))
    else:
        named = ((f"{name}.grad", p) for name, p in model.named_parameters())
        found |= {name: b.clone() for name, b in model.named_buffers()}
    return found | {n: p.grad.clone() for n, p in named if p.grad is not None}


def _leaves(result: Any) -> list[Tensor]:
    """The tensors that the graph of a result leads to, in the order of the graph."""
    if not isinstance(result, Tensor) or result.grad_fn is None:
        return []
    found: list[Tensor] = []
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.append(leaf)
        waiting += [further for further, _ in node.next_functions]
    return found


def _same(a: Any, b: Any) -> bool:
    """Bit-equal: NaN equals the same NaN, and −0 is not 0."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return torch.equal(_bytes(a), _bytes(b))
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def _bytes(x: Tensor) -> Tensor:
    return x.detach().contiguous().view(-1).view(torch.uint8)
