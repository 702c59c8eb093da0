"""Replay: a step computed twice, and compared bit by bit before the optimiser writes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.restoring import Buffers

__all__ = ["Replay", "replay"]


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


def replay(step: Callable[[], Any], model: nn.Module) -> Replay:
    """Compute a step twice from the same state and compare all that it left.

    A fault that no memory keeps (in a product, in a message) strikes one of the two. The
    second computation is what stays: gradients, buffers, random state.

    Args:
        step: forward and backward pass, without the optimiser's step; it returns the loss
            or anything that tensors compare in. It must read the same data both times.
        model: whose gradients and buffers are compared.

    Raises:
        RuntimeError: the gradients are not the model's own (``step`` replaced its
            parameters).

    Example:
        >>> model, x = nn.Linear(3, 1), torch.ones(2, 3)
        >>> def step():
        ...     loss = model(x).square().mean()
        ...     loss.backward()
        ...     return loss.detach()
        >>> replay(step, model).ok
        True

    Source: deterministic replay before the optimiser's step, as torchtitan merged it in
    2026 (pull request 4334); here in one process.
    """
    before = _state(model)
    buffers, random = Buffers(model), torch.get_rng_state()
    grads = {n: None if p.grad is None else p.grad.clone() for n, p in before.items()}
    first = step()
    once = _left(model)
    buffers.put_back()
    torch.set_rng_state(random)
    now = _state(model)
    if now.keys() != before.keys() or any(now[n] is not before[n] for n in now):
        raise RuntimeError("replay: the step replaced parameters of the model")
    for name, parameter in now.items():
        parameter.grad = grads[name]
    second = step()
    again = _left(model)
    differs = [] if _same(first, second) else ["result"]
    for name in sorted(once.keys() | again.keys()):
        if not _same(once.get(name), again.get(name)):
            differs.append(name)
    return Replay(tuple(differs), first)


def _state(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def _left(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients, the buffers and the random state after a step."""
    found = {
        f"{name}.grad": p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    found |= {name: b.clone() for name, b in model.named_buffers()}
    found["random state"] = torch.get_rng_state()
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
    return type(a) is type(b) and (a == b or a != a and b != b)


def _bytes(x: Tensor) -> Tensor:
    return x.detach().contiguous().view(-1).view(torch.uint8)
