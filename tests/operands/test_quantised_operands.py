"""Projected weights, learned steps and noisy levels: values, gradients, odd input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import elision
from elision.layers.recipe import Recipe, Table
from elision.operands import (
    Chain,
    LearnedStep,
    NoisyLevels,
    Project,
    TanhLevels,
    TopK,
    gaussian_step,
)
from elision.products import Product

X = (-0.2, 0.3, 0.7, 2.0)


def gradients(transform: LearnedStep, x: Tensor, step: float) -> tuple[Tensor, ...]:
    """Result, gradient of the operand, gradient of the step, for a result's gradient of 1."""
    x = x.clone().requires_grad_()
    state = {"step": torch.tensor([step], dtype=x.dtype, requires_grad=True)}
    y = transform.differentiable(x, state, True)
    y.sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad, state["step"].grad  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("gradient", "of_step"),
    [("three-valued", (0, 2, 2, 3)), ("exact", (0, 1, 2, 3)), ("pact", (0, 0, 0, 3))],
)
def test_the_table_of_two_bits(gradient, of_step):
    transform = LearnedStep(2, "ceil", gradient, rate=1, limit=math.inf)
    y, dx, _ = gradients(transform, torch.tensor(X), 0.5)
    assert y.tolist() == [0, 0.5, 1.0, 1.5]
    assert dx.tolist() == [0, 1, 1, 0]
    for x, expected in zip(X, of_step, strict=True):
        assert gradients(transform, torch.tensor([x]), 0.5)[2].item() == expected


def test_rate_and_limit_of_the_steps_gradient():
    x = torch.full((1000,), 9.0)
    assert gradients(LearnedStep(2, rate=1e-4), x, 0.5)[2].item() == pytest.approx(0.3)
    assert gradients(LearnedStep(2, rate=1.0), x, 0.5)[2].item() == 1.0
    assert gradients(LearnedStep(2, rate=1.0), -x, 0.5)[2].item() == 0.0


@pytest.mark.parametrize("signed", [False, True])
def test_lsq_is_its_formula(signed):
    torch.manual_seed(0)
    x, step, bits = torch.randn(6, 50, dtype=torch.float64), 0.4, 3
    transform = LearnedStep(
        bits, "round", "lsq", signed=signed, rate=1.0, limit=math.inf
    )
    low, high = (-4, 3) if signed else (0, 7)
    y, dx, ds = gradients(transform, x, step)
    v = x / step
    assert torch.equal(y, torch.round(v).clamp(low, high) * step)
    assert torch.equal(dx, ((v > low) & (v < high)).double())
    each = torch.where(v <= low, low, torch.where(v >= high, high, torch.round(v) - v))
    count = x.numel() if signed else x[0].numel()
    assert ds.item() == pytest.approx(each.sum().item() / math.sqrt(count * high))


def test_lsq_gradient_of_the_step_is_the_straight_through_derivative():
    # ds is what autograd gives s·(v + (round(v) − v) held constant), v = x/s within.
    torch.manual_seed(1)
    x = torch.rand(40, dtype=torch.float64) * 2
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    v = x / s
    clipped = v.clamp(0, 3)
    ((clipped + (torch.round(clipped) - clipped).detach()) * s).sum().backward()
    transform = LearnedStep(2, "round", "lsq", rate=math.sqrt(3), limit=math.inf)
    assert s.grad is not None
    found = gradients(transform, x, 0.5)[2]  # N is 1: examples of one value
    assert found.item() == pytest.approx(s.grad.item())


@pytest.mark.parametrize(
    ("bits", "quantiser", "best", "digits"),
    [
        (1, "round", 1.2240, 1e-4),
        (2, "round", 0.6508, 1e-4),
        (4, "round", 0.1933, 1e-4),
        (1, "ceil", 0.7979, 1e-4),
        (2, "ceil", 0.4868, 3e-4),  # measured on samples
        (4, "ceil", 0.1667, 3e-4),
    ],
)
def test_the_first_step_fits_its_quantiser(bits, quantiser, best, digits):
    assert gaussian_step(bits, quantiser) == pytest.approx(best, abs=digits)


@pytest.mark.parametrize("quantiser", ["ceil", "round"])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_no_other_step_fits_samples_better(bits, quantiser):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, generator=generator, dtype=torch.float64).abs()

    def error(step: float) -> float:
        state = {"step": torch.tensor([step], dtype=torch.float64)}
        y = LearnedStep(bits, quantiser).apply(x, state, False)
        return ((x - y) ** 2).mean().item()

    best = gaussian_step(bits, quantiser)
    assert error(best) < min(error(0.9 * best), error(1.1 * best))


@pytest.mark.parametrize("initial", ["data", "lsq"])
def test_the_first_batch_gives_a_step_once_and_evaluation_none(initial):
    layer = nn.Linear(16, 4)
    step = LearnedStep(2, "round", "lsq", initial=initial)
    row = {"input": step}
    elision.elide(
        layer, Recipe("", Table({Product.FORWARD: row, Product.WEIGHT_GRAD: row}))
    )
    torch.manual_seed(0)
    x = torch.randn(500, 16)
    name = "elision_input_for_forward_step"
    layer.eval()(x)
    assert layer.state_dict()[name].item() == 0
    layer.train()(x)
    first = layer.state_dict()[name].item()
    expected = gaussian_step(2, "round") if initial == "data" else 2 * 0.798 / 3**0.5
    assert first == pytest.approx(expected, rel=0.03)
    layer(5 * x)
    assert layer.state_dict()[name].item() == first


def test_projections_of_weights():
    w = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    assert Project(1)(w, [], True).abs().unique().tolist() == [2.125]
    assert Project(1, statistic="median")(w, [], True).abs().unique().tolist() == [1]
    assert Project(1, "channel")(w, [], True).tolist() == [[2, -2], [2.25, -2.25]]
    assert Project(1, "none")(w, [], True).tolist() == [[1, -1], [1, -1]]
    assert Project(1, "channel")(w[:0], [], True).shape == (0, 2)
    large = Project(3, "channel", fit="largest")(w, [], True)
    assert torch.allclose(large, torch.tensor([[3.0, -1.0], [0.0, -4.0]]))
    assert Project(2)(w, [], True).tolist() == [[3.5, 0], [0, -3.5]]
    assert Project(32)(w, [], True) is w
    four = Project(4)(w, [], True)
    assert torch.allclose(four, w, atol=4 / 7 / 2 + 0.05)
    # The least-squares step of the codes: the error is orthogonal to the result.
    assert torch.sum((w - four) * four).item() == pytest.approx(0, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=24),
    bits=st.sampled_from([1, 2, 3, 4, 8, 16]),
    group=st.sampled_from(["layer", "channel"]),
)
def test_a_projection_has_few_values_and_keeps_signs(values, bits, group):
    w = torch.tensor(values)[None]
    q = Project(bits, group)(w, [], True)
    assert q.shape == w.shape
    assert len(q.unique()) <= max(2, 2**bits - 1)
    assert bool(((q * w >= 0) | (w == 0)).all())


@pytest.mark.parametrize(
    "transform", [Project(1), Project(2), Project(4), LearnedStep()]
)
def test_a_nan_shows(transform):
    state = [torch.ones(1)] if transform.state_names else []
    assert transform(torch.tensor([[1.0, math.nan]]), state, True).isnan().any()


def test_infinities_and_signed_zeros_of_a_step():
    x = torch.tensor([-math.inf, -0.0, 0.0, 1e-45, math.inf])
    y = LearnedStep(2)(x, [torch.tensor([0.5])], True)
    assert y.tolist() == [0, 0, 0, 0.5, 1.5]
    assert not torch.signbit(y).any()


def test_the_gradient_of_xnor_net():
    w = torch.tensor([[0.5, -1.5], [0.25, 0.25]], requires_grad=True)
    Project(1, "channel", gradient="scaled").differentiable(
        w, {}, True
    ).sum().backward()
    assert w.grad is not None
    # 1/n + s·1[|w| <= 1], s = 1 and 0.25
    assert w.grad.tolist() == [[1.5, 0.5], [0.75, 0.75]]


def test_tanh_levels_are_their_formula_and_its_derivative():
    torch.manual_seed(2)
    w = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    q = TanhLevels(3).differentiable(w, {}, True)
    t = torch.tanh(w)
    r = t / (2 * t.abs().max()) + 0.5
    assert torch.allclose(q, 2 * torch.round(7 * r) / 7 - 1)
    (found,) = torch.autograd.grad(q.sum(), w, retain_graph=True)
    (expected,) = torch.autograd.grad((2 * r).sum(), w)
    assert torch.allclose(found, expected)
    assert torch.isfinite(TanhLevels(2)(torch.zeros(2, 2), [], True)).all()


def test_noisy_levels_are_unbiased_within_their_spread_and_repeat():
    x = torch.full((4000, 2), 0.3)
    x[:, 1] = 1.0
    transform = NoisyLevels(2)
    states = [
        {"step": torch.tensor(s), "stream": torch.tensor(n)}
        for s, n in ((0, 0), (0, 0))
    ]
    first, again = (transform.apply(x, state, True) for state in states)
    assert torch.equal(first, again)
    assert states[0]["step"].item() == 1
    other = transform.apply(x, states[0], True)
    assert not torch.equal(first, other)
    state = {"step": torch.tensor(0), "stream": torch.tensor(1)}
    assert not torch.equal(first, transform.apply(x, state, True))
    # Levels −1, −1/3, 1/3, 1: noise of one level makes the mean exact, sd <= 1/3.
    assert sorted(first[:, 0].unique().tolist()) == pytest.approx([-1 / 3, 1 / 3])
    assert first[:, 0].mean().item() == pytest.approx(0.3, abs=4 / 3 / 4000**0.5)
    assert first[:, 1].unique().tolist() == pytest.approx([1.0])
    zero = torch.zeros(2, 3)
    assert torch.equal(transform.apply(zero, state, True), zero)
    here, there = (transform.state_at(place) for place in ("a", "b"))
    assert not torch.equal(
        transform.apply(x, here, True), transform.apply(x, there, True)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Project(17), r"Project\(bits=17\): must be an integer in \[1, 16\]"),
        (lambda: Project(4, "none"), "need a scale"),
        (lambda: Project(2, gradient="scaled"), "XNOR-Net is that of 1 bit"),
        (lambda: LearnedStep(0), r"LearnedStep\(bits=0\)"),
        (lambda: LearnedStep(signed=True), "signed codes have 2 bits or more"),
        (lambda: LearnedStep(initial=-1.0), r"initial=-1.0\): must be a number > 0"),
        (lambda: LearnedStep(bounds=(0.0, 1.0)), "0 < low < high"),
        (lambda: TanhLevels(1), r"TanhLevels\(bits=1\)"),
        (lambda: NoisyLevels(9), r"NoisyLevels\(bits=9\)"),
    ],
)
def test_bad_parameters_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_chain_applies_gradients_from_the_last_link_to_the_first():
    x = torch.tensor([[0.3, 0.9, 2.0, -3.0]], requires_grad=True)
    chain = Chain((LearnedStep(2, initial=0.5), TopK(0.5)))
    state = chain.initial_state()
    assert chain.own_gradient
    y = chain.differentiable(x, state, True)
    assert torch.equal(y, chain(x.detach(), list(state.values()), False))
    y.sum().backward()
    assert x.grad is not None
    # Straight through the choice of the largest, clipped by the step.
    assert x.grad.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    "rows",
    [
        {Product.FORWARD: {"input": LearnedStep()}},
        {Product.INPUT_GRAD: {"weight": TanhLevels(2)}},
        {Product.INPUT_GRAD: {"grad_output": LearnedStep()}},
    ],
)
def test_a_gradient_of_its_own_is_that_of_both_products(rows):
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="has a gradient of its own"):
        elision.elide(layer, Recipe("half", Table(rows)))
    assert type(layer) is nn.Linear
