"""Ternary terms against their definitions."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import elision
from elision.formats.ternary_blocks import (
    counts_of_best,
    rows_of,
    ternary_blocks,
    weight_of,
)
from elision.layers.recipe import Recipe, Table
from elision.operands import Project, Ternary
from elision.products import Product


def nearest_ternary(values: list[float]) -> float:
    """Smallest squared error of any ternary vector with its best scale, by trying all."""
    best = math.inf
    for codes in product((-1, 0, 1), repeat=len(values)):
        norm = sum(c * c for c in codes)
        dot = sum(c * v for c, v in zip(codes, values, strict=True))
        scale = max(dot / norm, 0) if norm else 0.0
        error = sum((v - scale * c) ** 2 for c, v in zip(codes, values, strict=True))
        best = min(best, error)
    return best


@given(st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=6))
def test_one_term_is_the_nearest_ternary_vector(values: list[float]) -> None:
    x = torch.tensor([values], dtype=torch.float64)
    found = Ternary(block=len(values), terms=1)(x, [], True)
    error = ((found - x) ** 2).sum().item()
    assert error == pytest.approx(nearest_ternary(values), abs=1e-9)


def test_published_example() -> None:
    x = torch.tensor([[3.0, -1.0, 0.5, -4.0]])
    assert Ternary(4, 1)(x, [], True).tolist() == [[3.5, 0.0, 0.0, -3.5]]


def gaussian(rows: int = 64, columns: int = 512) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


#: Relative squared errors after 1 to 5 terms of Gaussian weights, by size of block.
ERRORS = {
    16: (0.165, 0.0287, 0.0063, 0.0012, 0.0002),
    64: (0.184, 0.0387, 0.0129, 0.0033, 0.0007),
    256: (0.188, 0.0411, 0.0165, 0.0054, 0.0016),
}


@pytest.mark.parametrize("block", ERRORS)
@pytest.mark.parametrize("scales", ["exact", "8-bit"])
def test_errors_of_gaussian_weights(block: int, scales: str) -> None:
    x = gaussian(256, 1024)
    terms = ternary_blocks(x, block, 5, scales)  # pyright: ignore[reportArgumentType]
    for count, expected in enumerate(ERRORS[block], 1):
        error = ((terms.first(count).decode() - x) ** 2).sum() / (x**2).sum()
        assert error == pytest.approx(expected, rel=0.05, abs=5e-5)


@pytest.mark.parametrize("block", [1, 7, 64, 100])
def test_each_residual_is_orthogonal_to_its_term(block: int) -> None:
    x = gaussian(8, 130)
    terms = ternary_blocks(x, block, 4)
    before = math.inf
    for count in range(1, 5):
        rest = x - terms.first(count).decode()
        codes = terms.codes[count - 1].flatten(1)[:, :130].double()
        for b in range(0, 130, block):
            dot = (rest * codes)[:, b : b + block].sum(1)
            assert dot.abs().max() < 1e-12
        error = (rest**2).sum().item()
        assert error <= before
        before = error
    removed = (x**2).sum() - terms.removed.sum()
    assert removed.item() == pytest.approx(before, rel=1e-9, abs=1e-12)


@given(st.integers(0, 40), st.integers(0, 39))
def test_what_fewer_residuals_enable_more_ones_do(more: int, fewer: int) -> None:
    gains = ternary_blocks(gaussian(4, 50), 8, 4).gains
    large, small = counts_of_best(gains, more), counts_of_best(gains, min(more, fewer))
    assert (small <= large).all()
    assert large.sum() == large.numel() + more


def test_the_greedy_choice_is_that_of_one_term_at_a_time() -> None:
    terms = ternary_blocks(gaussian(6, 40), 8, 5)
    counts = torch.ones(6, 5, dtype=torch.long)
    for given_now in range(1, 60):
        ahead = {
            (k, b): terms.removed[int(counts[k, b]), k, b].item()
            for k, b in product(range(6), range(5))
            if counts[k, b] < 5
        }
        counts[max(ahead, key=ahead.__getitem__)] += 1
        greedy = counts_of_best(terms.gains, given_now)
        # Where a block's next term is worth more than its last, both come in a row.
        assert (greedy - counts).abs().sum() <= 2


@pytest.mark.parametrize("shape", [(5, 6, 3, 2), (4, 7), (3, 1, 3, 3)])
def test_rows_and_back(shape: tuple[int, ...]) -> None:
    w = torch.randn(shape)
    assert torch.equal(weight_of(rows_of(w), w.shape), w)
    if len(shape) == 4:
        assert torch.equal(rows_of(w)[:, : shape[1]], w[:, :, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zeros_short_rows_and_dtypes(dtype: torch.dtype) -> None:
    projected = Project(1, "channel"), Project(2), Project(4, "channel")
    for transform in (Ternary(64, 3), Ternary(4, 3, budget=1.5), *projected):
        assert not transform(torch.zeros(3, 5, 1, 1, dtype=dtype), [], True).any()
        assert transform(torch.zeros(0, 5, dtype=dtype), [], True).shape == (0, 5)
        x = torch.randn(3, 5).to(dtype)
        y = transform(x, [], True)
        assert (y.shape, y.dtype) == (x.shape, dtype)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows(value: float) -> None:
    x = torch.tensor([[value, 1.0, -2.0]])
    assert Ternary()(x, [], True).isnan()[0, 0]


def test_a_budget_lies_between_the_terms_around_it() -> None:
    x = gaussian()

    def error(transform: Ternary) -> float:
        return ((transform(x, [], True) - x) ** 2).sum().item()

    assert torch.equal(
        Ternary(64, 2, budget=2.0)(x, [], True), Ternary(64, 2)(x, [], True)
    )
    assert torch.equal(
        Ternary(64, 2, budget=1.0)(x, [], True), Ternary(64, 1)(x, [], True)
    )
    half = error(Ternary(64, 2, budget=1.5))
    assert error(Ternary(64, 2)) < half < error(Ternary(64, 1))
    # Chosen blocks remove more than half of what all second terms do.
    middle = (error(Ternary(64, 2)) + error(Ternary(64, 1))) / 2
    assert half < middle


@pytest.mark.parametrize("transform", [Ternary(16, 2), Project(4, "channel")])
def test_as_a_recipe_the_weight_learns_straight_through(transform: object) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    row = {"weight": transform}
    table = Table({Product.FORWARD: row, Product.INPUT_GRAD: row})  # pyright: ignore
    recipe = Recipe("weights", table)
    assert Recipe.from_json(recipe.to_json()).table == recipe.table
    changed = nn.Conv2d(3, 4, 3)
    changed.load_state_dict(layer.state_dict())
    with torch.no_grad():
        changed.weight.copy_(transform(layer.weight, [], True))  # pyright: ignore
    elision.elide(layer, recipe, engine="torch")
    results = []
    for module in (layer, changed):
        value = x.clone().requires_grad_()
        y = module(value)
        (y**2).sum().backward()
        results.append((y, value.grad, module.weight.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ternary(block=0), "Ternary\\(block=0\\): must be an integer >= 1"),
        (lambda: Ternary(terms=0), "Ternary\\(terms=0\\)"),
        (lambda: Ternary(terms=2, budget=2.5), "must be a number in \\[1, 2\\]"),
        (lambda: Ternary(threshold="best"), "must be 'exact' or 'twn'"),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
