"""Sensitivities: predictions by hand, and against what a rounded forward pass gives."""

import copy
import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.precision import Sensitivity, rounding, sensitivity
from elision.precision.noise import relative_error
from elision.precision.sensitivity import SensitivityRow, rank_correlation

OPERANDS = ("weight", "input", "grad_output")

#: The module itself; in the package a function has its name.
MODULE = sys.modules[SensitivityRow.__module__]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 5, generator=generator), torch.arange(12) % 3


def loss_of(model: nn.Module, w1: Tensor, w2: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """Loss with other weights and with something added to the input of each layer."""
    first, second = model[0], model[2]  # pyright: ignore[reportIndexIssue]
    hidden = torch.tanh(F.linear(batch()[0] + x, w1, first.bias)) + h
    return F.cross_entropy(F.linear(hidden, w2, second.bias), batch()[1])


def exactly(model: nn.Module) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Operands and gradients of both weights and inputs, their whole Hessian by rows."""
    first, second = model[0], model[2]  # pyright: ignore[reportIndexIssue]
    x = batch()[0]
    hidden = torch.tanh(first(x)).detach()
    operands = [first.weight.detach(), second.weight.detach(), x, hidden]
    at = (*operands[:2], torch.zeros(12, 5), torch.zeros(12, 6))

    def loss(*at: Tensor) -> Tensor:
        return loss_of(model, *at)

    variables = [y.clone().requires_grad_() for y in at]
    gradients = torch.autograd.grad(loss(*variables), variables)
    blocks = torch.autograd.functional.hessian(loss, at)
    sizes = [y.numel() for y in at]
    rows = [
        torch.cat([block.reshape(n, m) for block, m in zip(row, sizes, strict=True)], 1)
        for row, n in zip(blocks, sizes, strict=True)
    ]
    return operands, list(gradients), torch.cat(rows)


@pytest.mark.parametrize("bits", ["4", "8"])
def test_predictions_are_those_of_the_exact_derivatives(
    bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exact diagonal in the place of its estimate, which has tests of its own."""
    model = network()
    operands, gradients, hessian = exactly(model)
    sizes = [x.numel() for x in operands]
    diagonals = [
        h.view_as(x)
        for h, x in zip(hessian.diagonal().split(sizes), operands, strict=True)
    ]
    asked = []

    def exact_diagonal(
        loss: object, at: list[Tensor], probes: int, seed: int
    ) -> list[Tensor]:
        asked.append((len(at), probes, seed))
        return diagonals

    monkeypatch.setattr(MODULE, "hessian_diagonal", exact_diagonal)
    found = sensitivity(model, batch(), (bits,), ("weight", "input"), probes=5, seed=7)
    assert asked == [(4, 5, 7)]
    rows = {(r.operand, r.layer): r for r in found.rows}
    places = [("weight", "0"), ("weight", "2"), ("input", "0"), ("input", "2")]
    start = 0
    for place, x, g in zip(places, operands, gradients, strict=True):
        row, own = rows[place], slice(start, start + x.numel())
        start += x.numel()
        block = hessian[own, own]
        delta = (rounding(bits, place[0])(x, [], False) - x).flatten()
        first = float(g.flatten() @ delta)
        squares = delta.square()
        assert row.first == pytest.approx(first, rel=1e-4, abs=1e-8)
        assert row.second - row.first == pytest.approx(
            float(block.diagonal() @ squares) / 2, rel=1e-3, abs=1e-9
        )
        assert row.trace - row.first == pytest.approx(
            float(block.diagonal().mean() * squares.sum()) / 2, rel=1e-3, abs=1e-9
        )
        # What is measured is the whole second order: but for a fiftieth, and the eighth
        # digit of a loss of about 1.
        whole = first + float(delta @ block @ delta) / 2
        if bits == "8":
            assert row.loss_change == pytest.approx(whole, rel=0.02, abs=5e-7)


def test_second_order_is_nearer_where_the_gradient_is_small() -> None:
    """At a minimum of the loss, where the first order says nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    x = torch.randn(300, 4)
    labels = torch.distributions.Categorical(logits=3 * model(x).detach()).sample()
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(model(x), labels)
        value.backward()
        return value

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    found = sensitivity(model, (x, labels), ("3", "4"), ("weight",), probes=64)
    for row in found.rows:
        assert row.loss_change > 0
        assert abs(row.first) < 0.1 * row.loss_change
        # Pairs of errors are left out, so this is a matter of size, not of digits.
        assert row.second == pytest.approx(row.loss_change, rel=0.6)


def test_noise_is_that_of_the_layer_alone_and_changes_are_measured() -> None:
    model, (x, labels) = network(), batch()
    found = sensitivity(model, (x, labels), ("4", "fp8-e4m3"), ("weight", "input"))
    exact = model(x).detach()
    for row in found.rows:
        how = rounding(row.format, row.operand)
        other = copy.deepcopy(model)
        hidden = x if row.layer == "0" else torch.tanh(model[0](x)).detach()
        w = model.get_submodule(row.layer).weight.detach()  # pyright: ignore[reportCallIssue]
        rounded = [hidden, w]
        i = 0 if row.operand == "input" else 1
        rounded[i] = how(rounded[i], [], False)
        assert row.noise == pytest.approx(
            relative_error(F.linear(*rounded), F.linear(hidden, w)), rel=1e-3
        )
        assert row.elements == (w if i else hidden).numel()
        layer = other.get_submodule(row.layer)
        if i:
            layer.weight.data = rounded[1]
        else:
            layer.register_forward_pre_hook(lambda _, args, y=rounded[0]: (y,))
        scores = other(x).detach()
        assert row.score_noise == pytest.approx(relative_error(scores, exact), rel=1e-4)
        change = float(F.cross_entropy(scores, labels) - F.cross_entropy(exact, labels))
        assert row.loss_change == pytest.approx(change, abs=1e-6)
    assert found.loss == pytest.approx(float(F.cross_entropy(exact, labels)))


def test_the_noise_of_separate_roundings_adds_up_in_squares() -> None:
    """Predicted noise of all weights together against the measured: within a fifth."""
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(64, 64), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(64, 10)).eval()
    x = torch.randn(64, 64)
    found = sensitivity(model, (x, torch.arange(64) % 10), ("6",), ("weight",))
    predicted = math.hypot(*(row.score_noise for row in found.rows))
    rounded = copy.deepcopy(model)
    for layer in rounded:
        if isinstance(layer, nn.Linear):
            layer.weight.data = rounding("6", "weight")(layer.weight.data, [], False)
    measured = relative_error(rounded(x).detach(), model(x).detach())
    assert predicted == pytest.approx(measured, rel=0.2)


def test_a_rounded_gradient_costs_a_share_of_the_decrease() -> None:
    model, (x, labels) = network(), batch()
    found = sensitivity(model, (x, labels), ("3",), ("grad_output",))
    hidden = torch.tanh(model[0](x)).detach()
    w2 = model[2].weight.detach()  # pyright: ignore[reportCallIssue]
    shares = (model(x).softmax(1) - F.one_hot(labels)).detach() / len(x)

    def weight_gradients(
        g2: Tensor, first: bool = False, second: bool = False
    ) -> list[Tensor]:
        """Both, with the gradient rounded that one layer reads; by hand."""

        def read(g: Tensor, is_rounded: bool) -> Tensor:
            return rounding("3", "grad_output")(g, [], False) if is_rounded else g

        g2 = read(g2, second)
        g1 = read(g2 @ w2 * (1 - hidden.square()), first)
        return [g1.T @ x, g2.T @ hidden]

    exact = weight_gradients(shares)
    size = sum(float(g.square().sum()) for g in exact)
    for row, arm in zip(found.rows, ({"first": True}, {"second": True}), strict=True):
        other = weight_gradients(shares, **arm)
        along = sum(float((a * b).sum()) for a, b in zip(exact, other, strict=True))
        assert row.loss_change == pytest.approx(1 - along / size, abs=1e-5)
        i = int(row.layer == "2")
        own = float((exact[i] * (exact[i] - other[i])).sum()) / size
        assert row.first == pytest.approx(own, abs=1e-5)
        assert row.noise == pytest.approx(relative_error(other[i], exact[i]), rel=1e-3)
    # Of the first layer nothing else changes.
    assert found.rows[0].first == pytest.approx(found.rows[0].loss_change, abs=1e-5)


@pytest.mark.parametrize("operand", ["weight", "input"])
def test_functions_in_place_change_nothing(operand: str) -> None:
    """A rectifier that writes over a layer's output, or over another layer's input."""

    def made(in_place: bool) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(in_place),
            nn.Conv2d(4, 4, 1),
            nn.ReLU(in_place),
            nn.Flatten(),
            nn.Linear(64, 3),
        )

    pair = torch.randn(8, 1, 6, 6), torch.arange(8) % 3
    found = [
        sensitivity(made(flag), pair, ("4",), (operand,)) for flag in (False, True)
    ]
    assert found[0] == found[1]


def test_the_model_stays_as_it_was() -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    sensitivity(model, batch(), ("4",), OPERANDS, probes=1)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_rows_print_and_become_json() -> None:
    found = sensitivity(network(), batch(), ("2", "8"), OPERANDS, probes=2)
    places = [(r.layer, r.operand, r.format) for r in found.rows]
    assert places == [
        (layer, operand, format)
        for layer in "02"
        for operand in OPERANDS
        for format in ("2", "8")
    ]
    assert "grad_output (4 rows)" in str(found)
    assert len(json.loads(json.dumps(found.to_dict()))["rows"]) == 12


def test_correlations_are_of_magnitudes_by_operand() -> None:
    def row(operand: str, first: float, change: float) -> SensitivityRow:
        return SensitivityRow("a", operand, "4", 4, 1, 1, 1, first, 0, 0, change)

    rows = (
        row("weight", -3.0, 0.3),
        row("weight", 1.0, 0.1),
        row("weight", 2.0, -0.2),
        row("input", 1.0, 1.0),
    )
    weight, of_input = Sensitivity(rows, 1.0).correlations()
    assert weight["first"] == pytest.approx(1)
    assert math.isnan(weight["second"])  # constant
    assert math.isnan(of_input["first"])  # one row


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 2, 3], [1, 2, 2, 3], 1),
        ([1, 2, 3], [1, 3, 2], 0.5),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0),
    ],
)
def test_ranks_correlate_as_spearman_has_it(
    first: list[float], second: list[float], expected: float
) -> None:
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (network(), {"formats": ("fp9",)}, "fp9.*bf16"),
        (network(), {"operands": ("wieght",)}, "operand='wieght'.*'weight'"),
        (Twice(), {}, "layer layer is called more than once"),
        (nn.Flatten(), {}, "Flatten has no layer in reach"),
        (network(), {"loss": lambda z, _: z.sum() * math.nan}, "loss.*nan"),
        (
            network(),
            {"loss": lambda z, _: (0 * z).sum(), "operands": ("grad_output",)},
            "gradient of the batch is zero",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    model: nn.Module, options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        sensitivity(model, batch(), **options)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
