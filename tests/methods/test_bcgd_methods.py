"""BCGD and the straight-through family as methods: tables, names, the paper's experiment."""

import math

import pytest
import torch
from torch import nn

import elision
from elision import methods
from elision.layers.recipe import Recipe, Table
from elision.methods import make_recipe, recipe_from_toml
from elision.operands import LearnedStep
from elision.products import Product

SPECS = {
    "bcgd:weight_bits=2,activation_bits=2,rho=0.001": methods.Bcgd(2, 2, 0.001),
    "bcgd:gradient=fixed,alpha=data": methods.Bcgd(gradient="fixed", alpha="data"),
    "binary-connect": methods.BinaryConnect(),
    "bwn": methods.BWN(),
    "twn": methods.TWN(),
    "dorefa": methods.DoReFa(),
    "pact": methods.PACT(),
    "lsq": methods.LSQ(),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


@pytest.mark.parametrize("spec", SPECS)
def test_names_and_files(spec):
    recipe = make_recipe(spec)
    assert recipe == SPECS[spec]
    assert recipe_from_toml(recipe.to_toml()) == recipe
    assert recipe.citation().startswith("@")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "bcgd:weight_bits=9",
            r"Bcgd\(weight_bits=9\): must be an integer in \[1, 8\]",
        ),
        ("bcgd:activation_bits=0", r"Bcgd\(activation_bits=0\)"),
        ("bcgd:rho=2", r"rho=2.0\): must be a number in \[0, 1\]"),
        ("bcgd:gradient=lsq", "'three-valued' or 'exact' or 'pact' or 'fixed'"),
        ("lsq:weight_bits=1", r"LSQ\(weight_bits=1\): must be an integer in \[2, 8\]"),
        ("dorefa:gradient_bits=12", r"DoReFa\(gradient_bits=12\)"),
        ("binary-connect:clip=0", r"clip=0.0\): must be a number > 0"),
    ],
)
def test_bad_parameters_are_named(spec, words):
    with pytest.raises(ValueError, match=words):
        make_recipe(spec)


def transforms(method) -> dict[str, list[str]]:
    """What the forward product of each layer reads, in words."""
    model = elision.elide(net(), method, engine="torch")
    return {
        name: [
            str(layer._elision_plan.table[Product.FORWARD, o])
            for o in ("input", "weight")
        ]  # pyright: ignore[reportAttributeAccessIssue]
        for name, layer in elision.layers.elided_layers(model)
    }


def test_which_layers_are_quantised():
    found = transforms(methods.Bcgd())
    assert found["0"] == ["keep", "binary by layer"]
    assert found["5"] == ["4 bits of a learned step, ceil", "binary by layer"]
    found = transforms(methods.Bcgd(dense=(":first", ":last")))
    assert found["0"] == found["5"] == ["keep", "keep"]
    assert found["2"][1] == "binary by layer"
    found = transforms(methods.LSQ(2, 2))
    assert found["0"] == ["keep", "signed 8 bits of a learned step, round"]
    assert found["2"][0] == "2 bits of a learned step, round"
    assert found["5"][0] == "8 bits of a learned step, round"


def test_steps_learn_in_a_compiled_model_as_in_an_eager_one():
    torch._dynamo.reset()
    grads = []
    for compiled in (False, True):
        model = elision.elide(net(), methods.Bcgd(1, 2), engine="torch")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        topology = elision.topology.attach(model, optimizer)
        run = (
            torch.compile(model, fullgraph=True, backend="aot_eager")
            if compiled
            else model
        )
        x = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(3))
        run(x).square().mean().backward()
        grads.append(
            {n: p.grad for n, p in topology.trained.items()}
            | {n: p.grad for n, p in model.named_parameters()}
        )
    eager, traced = grads
    assert eager.keys() == traced.keys()
    for name, expected in eager.items():
        assert expected is not None
        assert torch.allclose(traced[name], expected, rtol=1e-5, atol=1e-7), name


def test_pact_moves_its_clipping_value_as_published():
    method = methods.PACT(32, 2, dense=(), alpha=3.0)
    transform = method.activations()
    assert transform is not None
    x = torch.tensor([0.4, 2.9, 3.5, 7.0], requires_grad=True)
    state = transform.initial_state()
    step = state["step"].requires_grad_()
    assert step.item() == 1.0  # alpha over 3
    y = transform.differentiable(x, state, True)
    assert y.tolist() == [0, 3, 3, 3]
    y.sum().backward()
    assert x.grad is not None
    assert step.grad is not None
    assert x.grad.tolist() == [1, 1, 0, 0]
    # alpha = 3·step moves by 3·d(step); published: by 1 for each value above alpha.
    assert 3 * step.grad.item() == pytest.approx(2)


class TwoLayers:
    """``v·s(Z w)`` with binary activations and a teacher, as in the paper's analysis.

    ``Z: (batch, m, n)`` is Gaussian, ``w: (n,)`` and ``v: (m,)``. The gradient of the
    expected loss in ``w`` is known: with ``theta`` the angle between ``w`` and ``w*``,
    ``E s(z·w)s(z·w*) = 1/2 − theta/2π``, so it is ``−v·v*/(2π‖w‖)`` times the unit vector
    across ``w`` towards ``w*``.
    """

    m, n = 4, 8

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.w_star = torch.nn.functional.normalize(self._normal(self.n), dim=0)
        self.v_star = self._normal(self.m)
        self.first = nn.Linear(self.n, 1, bias=False)
        self.last = nn.Linear(self.m, 1, bias=False)
        with torch.no_grad():
            w = torch.nn.functional.normalize(self._normal(self.n), dim=0)
            self.first.weight.copy_(w[None])
            v = 0.3 * self._normal(self.m)
            self.last.weight.copy_((v * torch.sign(v @ self.v_star))[None])
        row = {"input": LearnedStep(1, "ceil", "fixed", initial=1.0)}
        table = Table({Product.FORWARD: row, Product.WEIGHT_GRAD: row})
        elision.elide(self.last, Recipe("binary activation", table), engine="torch")

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.random)

    def coarse(self, batch: int) -> torch.Tensor:
        """The coarse gradient in ``w`` of a fresh batch, left in the layers, too."""
        z = self._normal(batch, self.m, self.n)
        wanted = (z @ self.w_star > 0).float() @ self.v_star
        self.first.weight.grad = self.last.weight.grad = None
        y = self.last(self.first(z)[..., 0])[:, 0]
        (0.5 * (y - wanted).square().mean()).backward()
        assert self.first.weight.grad is not None
        return self.first.weight.grad[0]

    def true(self) -> torch.Tensor:
        w = self.first.weight.detach()[0]
        across = self.w_star - (self.w_star @ w) * w / (w @ w)
        agreement = self.last.weight.detach()[0] @ self.v_star
        return -agreement / (2 * math.pi * w.norm()) * across / across.norm()

    def angle(self) -> float:
        w = self.first.weight.detach()[0]
        return math.acos(min(1.0, float(w @ self.w_star / w.norm())))


@pytest.mark.parametrize("seed", range(4))
def test_the_coarse_gradient_has_a_positive_product_with_the_true_one(seed):
    net = TwoLayers(seed)
    true = net.true()
    products = torch.stack([net.coarse(500) @ true for _ in range(40)])
    error = products.std() / math.sqrt(len(products))
    # More than four standard errors from zero: chance does it once in 30,000.
    assert products.mean() > 4 * error


def test_coarse_gradient_descent_finds_the_teacher():
    net = TwoLayers(seed=1)
    first = net.angle()
    for _ in range(300):
        w_grad = net.coarse(500)
        with torch.no_grad():
            assert net.last.weight.grad is not None
            net.last.weight -= 0.2 * net.last.weight.grad
            net.first.weight -= 0.2 * w_grad
            net.first.weight /= net.first.weight.norm()
    assert first > 0.5
    assert net.angle() < 0.1


@pytest.mark.parametrize("spec", SPECS)
def test_a_model_without_values_is_refused_and_left_as_it_was(spec: str) -> None:
    with torch.device("meta"):
        model = net()
    plain = [type(layer) for layer in model]
    with pytest.raises(ValueError, match="starts from the weights' values") as told:
        elision.elide(model, make_recipe(spec))
    assert "\n" not in str(told.value)
    assert [type(layer) for layer in model] == plain
