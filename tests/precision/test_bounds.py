"""Bounds of perturbations: against networks that are really perturbed."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.precision import is_safe, product_bound, propagated, root_sum_square


@given(
    seed=st.integers(0, 10_000),
    depth=st.integers(1, 5),
    size=st.floats(1e-4, 0.5),
)
@settings(deadline=None)
def test_the_recursion_bounds_the_error_of_a_perturbed_chain(
    seed: int, depth: int, size: float
) -> None:
    torch.manual_seed(seed)
    widths = torch.randint(1, 9, (depth + 1,)).tolist()
    exact = perturbed = torch.randn(widths[0], dtype=torch.float64)
    gains, noises, errors = [], [], []
    for inputs, outputs in pairwise(widths):
        w = torch.randn(outputs, inputs, dtype=torch.float64)
        e = size * torch.randn_like(w)
        b = torch.randn(outputs, dtype=torch.float64)
        before, exact = exact, torch.relu(w @ exact + b)
        perturbed = torch.relu((w + e) @ perturbed + b)
        if not exact.norm():
            return  # a relative error has no meaning
        norm = torch.linalg.matrix_norm(w, 2)
        gains.append(float(norm * before.norm() / exact.norm()))
        noises.append(float(torch.linalg.matrix_norm(e, 2) / norm))
        errors.append(float((perturbed - exact).norm() / exact.norm()))
    for error, bound in zip(errors, propagated(gains, noises), strict=True):
        assert error <= bound * (1 + 1e-9)


@given(noises=st.lists(st.floats(0, 1), max_size=20), start=st.floats(0, 1))
def test_with_gains_of_one_the_recursion_is_the_product(
    noises: list[float], start: float
) -> None:
    last = [start, *propagated([1.0] * len(noises), noises, start)][-1]
    assert 1 + last == pytest.approx((1 + start) * (1 + product_bound(noises)))


@given(noises=st.lists(st.floats(0, 1), max_size=20))
def test_the_forms_are_in_order(noises: list[float]) -> None:
    """Root of the sum of squares, sum, product."""
    assert root_sum_square(noises) <= sum(noises) + 1e-12
    assert sum(noises) <= product_bound(noises) + 1e-9


def test_gains_and_noises_belong_together() -> None:
    with pytest.raises(ValueError, match="1 gains for 2 noises"):
        propagated([1.0], [0.1, 0.2])


@given(seed=st.integers(0, 10_000), size=st.floats(0, 2))
@settings(deadline=None)
def test_no_safe_example_changes_its_class(seed: int, size: float) -> None:
    torch.manual_seed(seed)
    scores = torch.randn(40, 5)
    perturbed = scores + size * torch.randn(40, 5)
    safe = is_safe(scores, perturbed)
    assert torch.equal(scores.argmax(1)[safe], perturbed.argmax(1)[safe])


def test_an_error_at_half_the_margin_is_not_safe() -> None:
    """There both classes may meet, so the rule is strict."""
    scores = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    half = scores + torch.tensor([[-1.0, 1.0], [-0.9, 0.9]])
    assert is_safe(scores, half).tolist() == [False, True]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_scores_of_one_class_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="classes >= 2"):
        is_safe(torch.zeros(shape), torch.zeros(shape))


def test_no_layer_makes_no_error() -> None:
    assert propagated([], []) == []
    assert product_bound([]) == root_sum_square([]) == 0
    assert not math.isnan(root_sum_square([]))
