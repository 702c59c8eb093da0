"""Noise of layers and scores: against products computed by hand, and state left alone."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision.operands import Project
from elision.precision import folded, perturbation, product_noise, rounding
from elision.precision.noise import NoiseSum, relative_error
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.workloads import make_model


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_the_noise_of_a_layer_is_that_of_its_product_alone() -> None:
    model, x = network(), images()
    found = perturbation(model, x, ("8a-4w",))
    first, second, last = found.layers
    assert [row.layer for row in found.layers] == ["0", "2", "5"]
    assert [row.kind for row in found.layers] == ["conv", "depthwise", "linear"]
    weight: torch.Tensor = model[0].weight.detach()  # pyright: ignore[reportAssignmentType]
    w4 = rounding("4", "weight")(weight, [], False)
    x8 = rounding("8", "input")(x, [], False)
    exact = F.conv2d(x, weight, padding=1)
    assert first.weight_noise == pytest.approx(
        relative_error(F.conv2d(x, w4, padding=1), exact), rel=1e-4
    )
    assert first.input_noise == pytest.approx(
        relative_error(F.conv2d(x8, weight, padding=1), exact), rel=1e-4
    )
    assert first.noise == pytest.approx(
        relative_error(F.conv2d(x8, w4, padding=1), exact), rel=1e-4
    )
    # The error of the first layer, bias included, is its own noise and no other's.
    assert first.error < first.noise
    assert second.error > second.noise or last.error > last.noise


def test_the_scores_are_those_of_the_elided_network() -> None:
    model, x = network(), images()
    found = perturbation(model, x, ("bf16", "8a-2w"))
    from elision.layers import Recipe
    from elision.precision import arithmetic

    for row, text in zip(found.formats[1:], ("bf16", "8a-2w"), strict=True):
        recipe = Recipe("mine", arithmetic(text).table())
        with torch.no_grad():
            scores = elision.elide(copy.deepcopy(model), recipe)(x)
            assert row.score_error == pytest.approx(
                relative_error(scores, model(x)), rel=1e-5
            )


def test_noise_falls_with_bits_and_so_do_the_shares() -> None:
    found = perturbation(network(), images(32), ("8a-8w", "8a-6w", "8a-4w", "8a-2w"))
    exact, *rows = found.formats
    assert exact.arithmetic == "float"
    assert (exact.score_error, exact.agree, exact.safe) == (0, 1, 1)
    errors = [row.score_error for row in rows]
    assert errors == sorted(errors)
    for row in rows:
        assert row.median <= row.largest
        assert row.largest <= row.root_sum_square <= row.total
        assert row.safe <= row.agree


def test_labels_below_zero_are_of_no_class() -> None:
    model, x = network(), images(4)
    with torch.no_grad():
        labels = model(x).argmax(1)
    assert perturbation(model, x, ()).formats[0].right is None
    assert perturbation(model, (x, labels), ()).formats[0].right == 1
    labels[0] = -1
    labels[1] = (labels[1] + 1) % 5
    found = perturbation(model, (x, labels), ()).formats[0].right
    assert found == pytest.approx(2 / 3)
    labels[:] = -1
    assert perturbation(model, (x, labels), ()).formats[0].right is None


def test_the_model_stays_as_it_was() -> None:
    model = make_model("cnn", in_channels=3).train()
    before = copy.deepcopy(model.state_dict())
    perturbation(model, images(), ("8a-4w",))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert not any("Elided" in type(m).__name__ for m in model.modules())


def test_an_elided_model_is_seen_without_its_recipe() -> None:
    plain = network()
    elided = elision.elide(copy.deepcopy(plain), elision.methods.Swat(0.9))
    found = perturbation(elided, images(), ("8a-8w",))
    assert found.layers == perturbation(plain, images(), ("8a-8w",)).layers
    assert type(elided[0]).__name__ == "ElidedConv2d"


def test_a_layer_that_is_called_several_times_has_one_row() -> None:
    model = make_model("lstm", in_channels=1, image_size=6, classes=3)
    found = perturbation(model, torch.randn(2, 1, 6, 6), ("8a-8w",))
    names = [row.layer for row in found.layers]
    assert len(names) == len(set(names))
    assert all(0 < row.noise < 0.1 for row in found.layers)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="Flatten has no layer in reach"):
        perturbation(nn.Flatten(), torch.randn(2, 3))


def test_a_batch_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="the batch holds no examples"):
        perturbation(network(), images(0))


def test_it_prints_and_becomes_json() -> None:
    found = perturbation(network(), images(), ("8a-8w",))
    assert "8a-8w" in str(found)
    assert found._repr_html_().startswith("<table>")
    assert json.loads(json.dumps(found.to_dict()))["examples"] == 4


@pytest.mark.parametrize("kind", Product)
def test_products_are_measured_against_float64(kind: Product) -> None:
    torch.manual_seed(0)
    geometry = MatmulGeometry(8, 16, 4)
    first, second = (torch.randn(geometry.shape_of(o)) for o in kind.operands)
    product = LayerProduct(kind, geometry, first, second)
    assert product_noise(product, {}) == 0
    name = kind.operands[0]
    rounded = Project(4, fit="largest").apply(first, {}, False)
    wide = LayerProduct(kind, geometry, rounded.double(), second.double()).compute()
    exact = LayerProduct(kind, geometry, first.double(), second.double()).compute()
    found = product_noise(product, {name: Project(4, fit="largest")})
    assert found == pytest.approx(float((wide - exact).norm() / exact.norm()))


def test_noise_without_a_signal_is_infinite() -> None:
    silence, noise = NoiseSum(), torch.ones(2)
    silence.add(torch.zeros(2), {"some": noise, "none": torch.zeros(2)})
    assert silence.ratio("some") == float("inf")
    assert silence.ratio("none") == 0


def trained_norms(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    return model.eval()


@pytest.mark.parametrize(
    ("name", "how"), [("cnn", {}), ("resnet8", {}), ("mobilenet-v2", {"width": 0.25})]
)
def test_folding_leaves_the_answers(name: str, how: dict[str, float]) -> None:
    torch.manual_seed(0)
    model = trained_norms(make_model(name, in_channels=3, **how))
    x = torch.randn(2, 3, 32, 32)
    made = folded(model, x)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-3, atol=1e-3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in made.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_folding_into_convolutions_of_every_kind(
    transposed: bool, axes: int, groups: int
) -> None:
    torch.manual_seed(0)
    kind = f"Conv{'Transpose' if transposed else ''}{axes}d"
    norm = getattr(nn, f"BatchNorm{axes}d")
    model = nn.Sequential(
        getattr(nn, kind)(4, 6, 3, groups=groups, bias=axes == 2),
        norm(6, affine=axes != 3),
        nn.ReLU(),
    )
    for _ in range(3):  # statistics of its own
        model(torch.randn(8, 4, *[5] * axes) + 1)
    x = torch.randn(2, 4, *[5] * axes)
    made = folded(model, x)
    assert isinstance(made[1], nn.Identity)  # pyright: ignore[reportIndexIssue]
    with torch.no_grad():
        torch.testing.assert_close(made(x), model.eval()(x), rtol=1e-4, atol=1e-5)


class Both(nn.Module):
    """Reads a convolution's output before its norm as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + 3 * y


def test_a_norm_is_not_folded_where_something_else_reads_its_input() -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="before its batch norm"):
        folded(trained_norms(Both()), torch.randn(2, 1, 4, 4))


def test_a_norm_with_no_layer_before_it_stays() -> None:
    model = trained_norms(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)))
    assert isinstance(folded(model, torch.randn(2, 1, 4, 4))[0], nn.BatchNorm2d)  # pyright: ignore[reportIndexIssue]
