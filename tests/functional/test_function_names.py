"""Baselines and names of what may stand for a function."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from elision import functional
from elision.functional import FUNCTIONS, make

EXACT: dict[str, Callable[..., Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
}


@pytest.mark.parametrize(
    ("function", "exact", "largest"),
    [
        (functional.rational_tanh, torch.tanh, 1.9e-2),
        (lambda x: functional.rational_tanh(x, 5), torch.tanh, 1.4e-3),
        (functional.rational_sigmoid, torch.sigmoid, 9.5e-3),
        (functional.plan_sigmoid, torch.sigmoid, 1.89e-2),
        (functional.plan_tanh, torch.tanh, 3.79e-2),
        (functional.hard_tanh, torch.tanh, 2.384e-1),
        (functional.hard_sigmoid, torch.sigmoid, 6.92e-2),
    ],
)
def test_largest_errors_of_the_baselines(
    function: Callable[[Tensor], Tensor],
    exact: Callable[[Tensor], Tensor],
    largest: float,
) -> None:
    x = torch.linspace(-12, 12, 1_000_001, dtype=torch.float64)
    error = float((function(x) - exact(x)).abs().max())
    assert error == pytest.approx(largest, rel=3e-2)
    ends = function(torch.tensor([-math.inf, math.inf, math.nan]))
    assert torch.equal(ends[:2], exact(torch.tensor([-math.inf, math.inf])))
    assert ends[2].isnan()


def test_plan_is_made_of_its_published_lines() -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 2.0, 2.375, 4.0, 5.0, 9.0])
    lines = [0.5, 0.625, 0.75, 0.875, 0.921875, 0.96875, 1.0, 1.0]
    assert functional.plan_sigmoid(x).tolist() == pytest.approx(lines, abs=4e-3)
    found = functional.plan_sigmoid(x) + functional.plan_sigmoid(-x)
    assert torch.equal(found, torch.ones(8))


@pytest.mark.parametrize("kind", EXACT)
def test_every_name_is_an_approximation_of_its_kind(kind: str) -> None:
    x = torch.linspace(-4, 4, 801)
    for name in FUNCTIONS[kind]:
        found = make(kind, name).call(x)
        assert float((found - EXACT[kind](x)).abs().max()) < 0.25, name


@pytest.mark.filterwarnings("ignore::elision.functional.RangeWarning")
def test_parameters_are_read() -> None:
    x = torch.randn(2, 3)
    found = make("softmax", "taylor-softmax(4)")
    assert torch.equal(found.call(x, dim=1), functional.taylor_softmax(x, 4))
    assert torch.equal(found.log_call(x, 1), functional.log_taylor_softmax(x, 4))
    five = make("tanh", "rational-tanh:terms=5").call(x)
    assert torch.equal(five, functional.rational_tanh(x, 5))


def test_a_function_of_ones_own() -> None:
    found = make("softmax", torch.softmax)
    x = torch.randn(2, 3)
    assert found.name == "softmax"
    assert torch.allclose(found.log_call(x, 1), x.log_softmax(1))


@pytest.mark.parametrize(
    ("kind", "given", "error", "words"),
    [
        ("tan", "k-tanh", ValueError, "unknown function to replace 'tan'.*known: tanh"),
        ("tanh", "k-tan", ValueError, "did you mean 'k-tanh'.*known: k-tanh, rational"),
        ("softmax", "taylor-softmax:order=3", ValueError, "order=3.*must be even"),
        ("softmax", "taylor-softmax:terms=3", ValueError, "known: order, backward"),
        ("tanh", "k-tanh:order=3", ValueError, "takes no parameters"),
        ("tanh", 3, TypeError, "must be a name or a function, got int"),
        ("tanh", lambda x: x.sum(), ValueError, r"argument's shape \(2, 3\), got \(\)"),
        ("softmax", lambda x: x, TypeError, "dim"),
    ],
)
def test_what_cannot_work_is_refused(
    kind: str, given: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(kind, given)  # pyright: ignore[reportArgumentType]
