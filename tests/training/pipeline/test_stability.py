"""The stable learning rate against roots, simulation and networks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elision.training.pipeline.stability import advise, contraction, stable_rate


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 16), st.floats(0, 0.95), st.booleans())
def test_all_roots_are_inside_below_the_bound_and_one_outside_above(
    curvature: float, delay: int, momentum: float, nesterov: bool
) -> None:
    bound = stable_rate(curvature, delay, momentum, nesterov=nesterov)

    def grows(factor: float) -> float:
        rate = factor * bound
        return contraction(curvature, rate, delay, momentum, nesterov=nesterov)

    assert grows(0.97) < 1
    assert grows(1.03) > 1
    assert grows(1.0) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("delay", "expected"), [(0, 2.0), (1, 1.0), (3, 0.445), (7, 0.209), (14, 0.108)]
)
def test_the_classic_bound(delay: int, expected: float) -> None:
    assert stable_rate(1.0, delay) == pytest.approx(expected, abs=5e-4)
    # The search for momentum finds the closed form where there is almost none.
    assert stable_rate(1.0, delay, 1e-9) == pytest.approx(stable_rate(1.0, delay))


def test_momentum_without_delay_is_the_textbook_s() -> None:
    assert stable_rate(4.0, 0, 0.9) == pytest.approx(2 * 1.9 / 4)


@pytest.mark.parametrize(
    ("delay", "momentum", "nesterov"),
    [(0, 0.0, False), (2, 0.0, False), (3, 0.8, False), (6, 0.5, True), (0, 0.9, True)],
)
def test_the_recursion_itself(delay: int, momentum: float, nesterov: bool) -> None:
    def last(factor: float) -> float:
        rate = factor * stable_rate(1.0, delay, momentum, nesterov=nesterov)
        w, v = [1.0] * (delay + 1), 0.0
        for _ in range(3000):
            g = w[-1 - delay]
            v = momentum * v + g
            w.append(w[-1] - rate * (g + momentum * v if nesterov else v))
        return max(map(abs, w[-50:]))

    assert last(0.97) < 0.1
    assert last(1.03) > 10


def test_advice_follows_the_curvature_of_each_stage() -> None:
    torch.manual_seed(0)
    stages = [nn.Linear(3, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)]
    nn.init.constant_(stages[2].weight, 2.0)
    x = torch.randn(64, 3)
    advice = advise(
        stages[:1], nn.functional.mse_loss, (x, torch.zeros(64, 1)), delays=(3,)
    )
    # Of the mean of (x·w)² the Hessian is 2 X'X / n.
    exact = torch.linalg.eigvalsh(2 * x.T @ x / 64).max().item()
    assert advice[0].sharpness == pytest.approx(exact, rel=1e-3)
    assert advice[0].rate == pytest.approx(stable_rate(exact, 3), rel=1e-3)
    assert advice[0].slowdown == pytest.approx(2 / stable_rate(1.0, 3))
    assert "stage 0: delay 3" in str(advice[0])
    whole = advise(
        stages, nn.functional.mse_loss, (x, torch.zeros(64, 1)), delays="pipedream"
    )
    assert [a.delay for a in whole] == [2, 1, 0]
    assert whole[1].rate == math.inf  # no parameters


def test_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="curvature=0"):
        stable_rate(0, 1)
    with pytest.raises(ValueError, match="delay=-1"):
        stable_rate(1, -1)
    with pytest.raises(ValueError, match="momentum=1"):
        stable_rate(1, 1, 1)
