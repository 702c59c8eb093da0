"""The estimators on problems whose gradient, noise and curvature are known."""

import math

import pytest
import torch
from sparse_models import batch, small_net
from torch import Tensor, nn

import elision
from elision import methods
from elision.training.stationarity import (
    StationarityWatch,
    loss_slope,
    noise_trace,
    sharpness,
    squared_gradient_norm,
    windows_differ,
)


class Quadratic(nn.Module):
    """``F(w) = mean over a batch of (w − x)ᵀ D (w − x) / 2``, so ``∇F = D (w − mean x)``."""

    curvature = torch.tensor([4.0, 1.0, 0.25])

    def __init__(self, start=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.full((3,), start))

    def forward(self, x):
        return 0.5 * ((self.w - x).square() @ self.curvature).mean()


def loss(model, x):
    return model(x)


def gradients(model, x):
    return torch.autograd.grad(model(x), [model.w])[0]


def test_two_batches_give_an_unbiased_gradient_norm_and_the_noise():
    model, g = Quadratic(), torch.Generator().manual_seed(0)
    true = float(model.curvature.square().sum())
    trace = true  # unit normal examples: Σ = D²
    squares, biased, traces = [], [], []
    for _ in range(4000):
        a, b = (gradients(model, torch.randn(4, 3, generator=g)) for _ in range(2))
        squares.append(squared_gradient_norm(a, b))
        biased.append(squared_gradient_norm(a, a))
        traces.append(noise_trace(a, (a + b) / 2, 4, 8))
    assert sum(squares) / 4000 == pytest.approx(true, rel=0.03)
    assert sum(biased) / 4000 == pytest.approx(true + trace / 4, rel=0.03)
    assert sum(traces) / 4000 == pytest.approx(trace, rel=0.1)


def test_noise_needs_a_smaller_batch():
    with pytest.raises(ValueError, match="0 < small < large"):
        noise_trace(torch.ones(2), torch.ones(2), 8, 8)


def test_sharpness_is_the_largest_eigenvalue():
    assert sharpness(Quadratic(), loss, torch.randn(5, 3)) == pytest.approx(4, rel=1e-4)


def test_sharpness_of_a_network_is_that_of_its_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 1).double()

    def squared(model, _):
        return (model(x) - y).square().mean()

    shapes = [(n, p.shape) for n, p in net.named_parameters()]

    def flat(vector):
        parts = vector.split([s.numel() for _, s in shapes])
        named = {n: part.view(s) for (n, s), part in zip(shapes, parts, strict=True)}
        return (torch.func.functional_call(net, named, x) - y).square().mean()

    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(flat, start))
    largest = float(values[values.abs().argmax()])
    assert sharpness(net, squared, None, iterations=200) == pytest.approx(
        largest, rel=1e-3
    )


def test_an_elided_model_has_the_sharpness_of_its_plain_self():
    def cross_entropy(model, pair):
        return nn.functional.cross_entropy(model.eval()(pair[0]), pair[1])

    plain = sharpness(small_net(), cross_entropy, batch(0))
    model = elision.elide(small_net(), methods.Swat(0.5))
    assert sharpness(model, cross_entropy, batch(0)) == pytest.approx(plain)
    assert any(True for _ in elision.layers.elided_layers(model))


def test_the_slope_and_its_interval():
    g = torch.Generator().manual_seed(0)
    exact, interval = loss_slope([3 - 0.5 * t for t in range(50)])
    assert exact == pytest.approx(-0.5)
    assert interval == pytest.approx(0, abs=1e-9)
    covered = 0
    for _ in range(300):
        noise = torch.randn(100, generator=g)
        slope, interval = loss_slope((0.01 * torch.arange(100) + noise).tolist())
        covered += abs(slope - 0.01) <= interval
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_windows_of_one_distribution_rarely_differ_and_shifted_ones_do():
    g = torch.Generator().manual_seed(0)

    def walk(n, memory, shift=0.0):
        x, out = 0.0, []
        for e in torch.randn(n, generator=g).tolist():
            x = memory * x + math.sqrt(1 - memory**2) * e
            out.append(x + shift)
        return out

    for memory in (0.0, 0.9):
        rejected = sum(
            windows_differ(walk(200, memory), walk(200, memory)) < 0.01
            for _ in range(200)
        )
        assert rejected <= 10
    assert windows_differ(walk(200, 0.0), walk(200, 0.0, shift=1.0)) < 1e-6


def run(model, rate, steps, examples, seed=0):
    """Gradient descent with ``examples`` a step (None: the mean itself), watched."""
    g = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    watch = StationarityWatch(model, optimizer, loss, window=400)

    def draw():
        return (
            torch.zeros(1, 3)
            if examples is None
            else torch.randn(examples, 3, generator=g)
        )

    for step in range(steps):
        optimizer.zero_grad()
        value = model(draw())
        value.backward()
        optimizer.step()
        watch(value.item())
        if step % 20 == 0:
            watch.look(draw(), draw(), examples or 1, curvature=step == 0)
    return watch


def test_descent_without_noise_ends_in_a_stationary_point():
    report = run(Quadratic(), 0.3, 1200, None).report()
    assert report.verdict == "stationary point"
    assert "no gradient is found" in str(report)


def test_descent_with_noise_ends_in_an_invariant_regime():
    watch = run(Quadratic(), 0.3, 2000, 4)
    report = watch.report()
    assert report.verdict == "invariant regime"
    assert report.gradient_squared[0] > 2 * report.gradient_squared[1]
    assert report.displacement_ratio < 0.2
    assert watch.looks[0].rate_sharpness == pytest.approx(0.3 * 4, rel=1e-3)


def test_a_long_way_down_is_still_moving():
    report = run(Quadratic(start=50.0), 1e-3, 500, 4).report()
    assert report.verdict == "still moving"
    assert report.displacement_ratio > 0.5
    assert "the loss changes by" in str(report)


def test_a_report_needs_steps_and_probes():
    watch = run(Quadratic(), 0.1, 50, 4)
    with pytest.raises(ValueError, match="needs 400 steps, 49 were watched"):
        watch.report()


def test_a_look_that_fails_in_the_middle_leaves_the_buffers_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    inputs, labels = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    wrong = labels.clone().fill_(7)  # no such class: the second gradient raises

    def cross_entropy(net: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(net(pair[0]), pair[1])

    model(inputs)  # running statistics away from their start
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    watch = StationarityWatch(model, optimizer, cross_entropy)
    with pytest.raises(IndexError, match="out of bounds"):
        watch.look((inputs, labels), (inputs + 1, wrong), len(labels))
    after = dict(model.named_buffers())
    assert {"1.running_mean", "1.num_batches_tracked"} <= set(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not watch.looks


@pytest.mark.parametrize("poison", ["weights", "loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_is_not_finite_has_diverged(poison: str, value: float) -> None:
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = StationarityWatch(model, optimizer, loss, window=20)
    for step in range(30):
        if poison == "weights" and step == 15:
            model.w.data.fill_(value)
        watch(value if poison == "loss" and step == 15 else 1.0)
        if step in (12, 25):
            watch.look(torch.randn(4, 3), torch.randn(4, 3), 4)
    report = watch.report()
    assert report.verdict == "diverged"
    assert "is not finite" in str(report)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["first", "second", "both"])
def test_windows_that_are_not_finite_have_no_p_value(place: str, value: float) -> None:
    good, bad = [float(i) for i in range(20)], [float(i) for i in range(19)] + [value]
    first = good if place == "second" else bad
    assert math.isnan(windows_differ(first, good if place == "first" else bad))


def test_a_look_at_a_gradient_that_is_not_finite_finds_no_small_one() -> None:
    model = Quadratic()
    watch = StationarityWatch(model, torch.optim.SGD(model.parameters(), 0.0), loss)
    bad = torch.full((4, 3), math.nan)
    look = watch.look(torch.randn(4, 3), bad, 4)
    assert math.isnan(look.gradient_squared)
    assert math.isnan(look.relative_gradient)
    assert math.isnan(look.noise_scale)


def test_a_path_that_is_not_finite_has_no_displacement() -> None:
    model = Quadratic()
    watch = StationarityWatch(
        model, torch.optim.SGD(model.parameters(), 0.0), loss, window=10
    )
    for step in range(14):
        with torch.no_grad():
            model.w.fill_(math.inf if step == 11 else 1.0)
        watch(1.0)
        if step in (9, 12):
            watch.look(torch.randn(4, 3), torch.randn(4, 3), 4)
    report = watch.report()
    assert report.verdict == "diverged"
    assert not math.isfinite(report.displacement_ratio)


def test_a_curvature_that_is_not_finite_is_no_stationary_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("elision.training.stationarity.sharpness", lambda *_: math.nan)
    model = Quadratic(start=0.0)
    watch = StationarityWatch(
        model, torch.optim.SGD(model.parameters(), 0.0), loss, window=10
    )
    for step in range(14):
        watch(1.0)
        if step in (9, 12):
            watch.look(torch.zeros(4, 3), torch.zeros(4, 3), 4, curvature=True)
    assert watch.report().verdict == "diverged"


def test_a_gradient_that_a_mask_hides_is_zero_whatever_it_is() -> None:
    net = nn.Linear(3, 4)
    model = elision.elide(net, methods.Static(0.5, dense=()), engine="torch")
    elision.topology.attach(model, torch.optim.SGD(model.parameters(), 0.1))
    watch = StationarityWatch(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        lambda m, x: m(x).square().mean() + 0 * net.weight.abs().sqrt().sum(),
    )
    look = watch.look(torch.randn(4, 3), torch.randn(4, 3), 4)  # d sqrt(0) is infinite
    assert math.isfinite(look.gradient_squared)
