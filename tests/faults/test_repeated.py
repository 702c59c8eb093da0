"""A step that is repeated: from the same state, and only where bytes were damaged."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from elision.faults import repeated
from elision.memory import DamagedError


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)
    )


def _step(model: nn.Module, damaged: int) -> Callable[[], torch.Tensor]:
    """A step whose first so many attempts end late in a damaged tensor."""
    x, left = torch.arange(24.0).view(8, 3), [damaged]

    def step() -> torch.Tensor:
        loss = model(x).square().mean()
        loss.backward()
        if left[0]:
            left[0] -= 1
            raise DamagedError("a tensor")
        return loss

    return step


def _left(model: nn.Module) -> list[torch.Tensor]:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [*grads, *model.buffers(), torch.get_rng_state()]


def test_a_repeated_step_leaves_what_a_clean_one_does() -> None:
    clean, struck = _model(), _model()
    assert all(map(torch.equal, clean.parameters(), struck.parameters()))
    for model in (clean, struck):  # gradients that a step adds to
        torch.manual_seed(2)
        model(torch.ones(8, 3)).sum().backward()
    torch.manual_seed(1)
    a = repeated(_step(clean, 0), clean)
    left = [copy.deepcopy(x) for x in _left(clean)]
    torch.manual_seed(1)
    b = repeated(_step(struck, 2), struck, attempts=3)
    assert torch.equal(a, b)
    assert all(map(torch.equal, left, _left(struck)))


def test_the_last_attempt_raises() -> None:
    model = _model()
    with pytest.raises(DamagedError):
        repeated(_step(model, 2), model)
    with pytest.raises(ValueError, match="attempts"):
        repeated(_step(model, 0), model, attempts=0)


def test_other_errors_pass() -> None:
    def step() -> None:
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        repeated(step, _model())
