"""Allocation of bits: against every choice there is, of small problems."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import elision
from elision.operands import KEEP
from elision.precision import (
    Allocation,
    Sensitivity,
    allocate,
    rounding,
    sensitivity,
    uniform_recipe,
)
from elision.precision.sensitivity import SensitivityRow
from elision.products import Product

FORMATS = ("2", "4", "8")


def row(
    layer: str,
    operand: str = "weight",
    format: str = "4",
    *,
    elements: int = 10,
    noise: float = 0.0,
    score: float = 0.0,
    change: float = 0.0,
) -> SensitivityRow:
    return SensitivityRow(
        layer, operand, format, int(format), elements, noise, score, 0, 0, 0, change
    )


def measured(*rows: SensitivityRow) -> Sensitivity:
    return Sensitivity(rows, 1.0)


def least_damage(
    rows: tuple[SensitivityRow, ...], budget: float, by: str
) -> float | None:
    """Damage of the best of all choices whose means keep the budget, by trying each."""
    places = list(dict.fromkeys((r.layer, r.operand) for r in rows))
    choices = [[r for r in rows if (r.layer, r.operand) == place] for place in places]
    best = None
    for chosen in itertools.product(*choices):
        if all(
            sum(r.elements * r.bits for r in chosen if r.operand == operand)
            <= budget * sum(r.elements for r in chosen if r.operand == operand) + 1e-9
            for operand in {r.operand for r in chosen}
        ):
            damage = sum(
                {
                    "scores": r.score_noise**2,
                    "output": r.noise**2,
                    "loss": max(r.loss_change, 0),
                }[by]
                for r in chosen
            )
            best = damage if best is None else min(best, damage)
    return best


@st.composite
def problems(draw: st.DrawFn) -> Sensitivity:
    """Damages in any order: fewer bits need not be worse."""
    size = st.floats(0, 1).map(lambda x: round(x, 3))
    rows = []
    for layer in "abc"[: draw(st.integers(1, 3))]:
        for operand in draw(st.sampled_from([("weight",), ("weight", "input")])):
            elements = draw(st.integers(1, 50))
            for format in FORMATS:
                values = {
                    "noise": draw(size),
                    "score": draw(size),
                    "change": draw(size) - 0.3,
                }
                rows.append(row(layer, operand, format, elements=elements, **values))
    return measured(*rows)


@given(
    problem=problems(),
    budget=st.floats(2, 9),
    by=st.sampled_from(["scores", "loss", "output"]),
)
@settings(max_examples=60)
def test_no_other_choice_under_the_budget_is_better(
    problem: Sensitivity, budget: float, by: str
) -> None:
    found = allocate(problem, budget, by=by)
    best = least_damage(problem.rows, budget, by)
    assert best is not None
    assert found.damage == pytest.approx(best, rel=1e-6, abs=1e-6)
    places = {(r.layer, r.operand) for r in problem.rows}
    assert set(found.formats) == places
    for operand, mean in found.bits.items():
        rows = [
            r
            for r in problem.rows
            if r.operand == operand and found.formats[r.layer, operand] == r.format
        ]
        elements = sum(r.elements for r in rows)
        assert mean == pytest.approx(sum(r.bits * r.elements for r in rows) / elements)
        assert mean <= budget * (1 + 1e-8)


def test_a_greedy_choice_is_not_enough() -> None:
    """The widest gain a bit is of ``a``; with it taken there is no room for both others."""
    sizes, gains = {"a": 6, "b": 5, "c": 5}, {"a": 0.61, "b": 0.5, "c": 0.5}
    rows = [
        row(layer, format=f, elements=n, change=0 if f == "8" else gains[layer])
        for layer, n in sizes.items()
        for f in ("2", "8")
    ]
    budget = (2 * 16 + 6 * 10) / 16
    found = allocate(measured(*rows), budget, by="loss")
    assert {layer: f for (layer, _), f in found.formats.items()} == {
        "a": "2",
        "b": "8",
        "c": "8",
    }
    assert found.damage == pytest.approx(0.61)


def test_costs_of_ones_own_make_one_budget() -> None:
    rows = [
        row("a", operand, f, elements=n, score=1 / int(f))
        for operand, n in (("weight", 1), ("input", 1000))
        for f in ("2", "8")
    ]
    # By elements the input could not have more than two bits; at this cost it can.
    costs = {("a", "weight"): 9.0, ("a", "input"): 1.0}
    found = allocate(measured(*rows), 2.6, weights=costs)
    assert found.formats == {("a", "weight"): "2", ("a", "input"): "8"}
    assert found.bits == {"cost": pytest.approx(2.6)}


@pytest.mark.parametrize(
    ("rows", "budget", "options", "says"),
    [
        ([], 4.0, {}, "nothing was measured of a weight or an input"),
        ([row("a", "grad_output")], 4.0, {}, "nothing was measured"),
        ([row("a", format="4")], 3.9, {}, r"budget=3.9\): the fewest.*mean of 4 \(w"),
        ([row("a")], 0.0, {}, "budget=0"),
        ([row("a")], float("nan"), {}, "budget=nan"),
        ([row("a")], 4.0, {"by": "luck"}, "by='luck'.*'scores'"),
        ([row("a", score=float("inf"))], 4.0, {}, "weight of a.*inf"),
        ([row("a", change=float("nan"))], 4.0, {"by": "loss"}, "weight of a.*nan"),
        ([row("a")], 4.0, {"weights": {("b", "weight"): 1.0}}, "no cost.*weight of a"),
        ([row("a")], 4.0, {"weights": {("a", "weight"): 0.0}}, "weight of a.*cost=0"),
    ],
)
def test_what_cannot_be_allotted_is_said_in_one_line(
    rows: list[SensitivityRow], budget: float, options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        allocate(measured(*rows), budget, **options)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


def test_a_recipe_rounds_each_operand_as_it_was_allotted() -> None:
    formats = {("0", "weight"): "8", ("0", "input"): "4", ("2", "weight"): "2"}
    chosen = Allocation(formats, {"weight": 5.0, "input": 4.0}, 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.randn(4, 5)
    first, second = model[0], model[2]
    hidden = nn.functional.linear(
        rounding("4", "input")(x, [], False),
        rounding("8", "weight")(first.weight.detach(), [], False),  # pyright: ignore[reportCallIssue]
        first.bias,  # pyright: ignore[reportArgumentType]
    ).relu()
    w2 = rounding("2", "weight")(second.weight.detach(), [], False)  # pyright: ignore[reportCallIssue]
    expected = nn.functional.linear(hidden, w2, second.bias)  # pyright: ignore[reportArgumentType]
    found = elision.elide(model, chosen.recipe())(x)
    torch.testing.assert_close(found, expected)
    assert chosen.rows() == [
        {"layer": "0", "weight": "8", "input": "4"},
        {"layer": "2", "weight": "2"},
    ]


def test_an_allotted_network_errs_less_than_a_uniform_one() -> None:
    """What is predicted of the scores is about what is then measured: within a half."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    with torch.no_grad():
        model[0].weight[:, 0] *= (  # pyright: ignore[reportIndexIssue]
            8  # channels that need more bits than those of the last
        )
    x = torch.randn(64, 8)
    found = sensitivity(model, (x, torch.arange(64) % 4), ("2", "4", "6", "8"))
    chosen = allocate(found, 5)
    exact = model(x).detach()
    scores = elision.elide(model, chosen.recipe())(x).detach()
    error = float((scores - exact).norm() / exact.norm())
    assert error == pytest.approx(chosen.damage**0.5, rel=0.5)
    four = [r.score_noise**2 for r in found.rows if r.format == "4"]
    assert chosen.damage < sum(four)


def test_one_format_everywhere() -> None:
    table = uniform_recipe("4").table
    assert table[Product.FORWARD, "weight"] == rounding("4", "weight")
    assert table[Product.FORWARD, "input"] == rounding("4", "input")
    assert uniform_recipe("4", ("weight",)).table[Product.FORWARD, "input"] == KEEP
