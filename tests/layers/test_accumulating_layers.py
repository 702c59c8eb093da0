"""The third cell of a recipe's table: what sums a layer's products."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import elision
from elision.engines.accumulating import compute, random_key
from elision.formats import FORMATS
from elision.layers.recipe import Recipe, Table
from elision.operands import Accumulate, Cast, TopK
from elision.products import LayerProduct, Product, geometry_of
from elision.workloads.models.resnet import resnet8

COUNTER = "elision_accumulate_step"


def everywhere(cell: Accumulate, **operands: Cast | TopK) -> Recipe:
    rows = {
        p: {o: t for o, t in operands.items() if o in p.operands} | {"accumulate": cell}
        for p in Product
    }
    return Recipe("accumulate", Table(rows))


def layers() -> list[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    return [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(3, 4, 7, 8)),
        (
            nn.Conv2d(4, 8, (3, 2), padding=2, dilation=2, groups=2),
            torch.randn(2, 4, 5, 6),
        ),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), torch.randn(2, 4, 6, 6)),
        (
            nn.Conv2d(3, 2, 3, padding="same", padding_mode="circular"),
            torch.randn(3, 5, 5),
        ),
        (nn.Linear(9, 5), torch.randn(2, 3, 9)),
        (nn.Linear(9, 5), torch.randn(9)),
    ]


def passed(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, input gradient and gradients of the parameters."""
    layer.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
    assert x.grad is not None
    return [
        y.detach(),
        x.grad,
        *(p.grad for p in layer.parameters() if p.grad is not None),
    ]


@pytest.mark.parametrize("case", range(len(layers())))
@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_wide_sums_are_the_plain_layers(case: int, engine: str) -> None:
    layer, x = layers()[case]
    plain = passed(layer, x)
    elided = elision.elide(layer, everywhere(Accumulate("fp32", 4)), engine=engine)
    for found, expected in zip(passed(elided, x), plain, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("engine", ["torch", "native", "auto"])
def test_every_product_is_summed_as_its_cell_says(engine: str) -> None:
    if engine == "native" and elision.engines.NativeEngine().unavailable():
        pytest.skip("no native kernels here")
    layer, x = layers()[0]
    cells = {
        Product.FORWARD: Accumulate("fp16", 8),
        Product.INPUT_GRAD: Accumulate("bf16", 4, compensated=True),
        Product.WEIGHT_GRAD: Accumulate("fp8-e5m2", 4, wide="fp16", wide_chunk=2),
    }
    rows = {p: {"accumulate": cell} for p, cell in cells.items()}
    elision.elide(layer, Recipe("mine", Table(rows)), engine=engine)
    y, dx, dw, db = passed(layer, x)
    w, bias = (p.detach() for p in layer.parameters())
    g = torch.linspace(-1, 1, y.numel()).view(y.shape)
    how = ((2, 2), (1, 1), (1, 1), 1)
    geometry = geometry_of(tuple(x.shape), tuple(w.shape), how)
    operands = {"input": x, "weight": w, "grad_output": g}
    expected = {
        kind: compute(
            LayerProduct(kind, geometry, *(operands[o] for o in kind.operands)), cell
        )
        for kind, cell in cells.items()
    }
    assert torch.equal(y, expected[Product.FORWARD] + bias.view(-1, 1, 1))
    assert torch.equal(dx, expected[Product.INPUT_GRAD])
    assert torch.equal(dw, expected[Product.WEIGHT_GRAD])
    torch.testing.assert_close(db, g.sum((0, 2, 3)))


def test_operands_and_sums_go_together() -> None:
    layer, x = layers()[4]
    weight = layer.weight.detach().clone()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    recipe = everywhere(
        Accumulate("fp16", 4, "bf16"), weight=TopK(0.5), input=Cast("bf16")
    )
    y = elision.elide(layer, recipe, engine="auto")(x) - layer.bias
    kept = TopK(0.5)(weight, [], True)
    product = LayerProduct(
        Product.FORWARD,
        geometry_of((6, 9), (5, 9), None),
        FORMATS["bf16"].round(x.view(6, 9)),
        kept,
    )
    found = compute(product, Accumulate("fp16", 4, "bf16"))
    torch.testing.assert_close(y.detach().view(6, 5), found)


def test_random_bits_move_by_step_and_stay_in_evaluation() -> None:
    cell = Accumulate("fp8-e4m3", 8, rounding="stochastic", seed=5)
    layer, x = layers()[4]
    elision.elide(layer, everywhere(cell))
    first, second = layer(x).detach(), layer(x).detach()
    assert not torch.equal(first, second)
    assert layer.state_dict()[COUNTER] == 2
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    assert layer.state_dict()[COUNTER] == 2
    # The key is of the seed, the layer, the product and the step.
    other, _ = layers()[4]
    elision.elide(other, everywhere(cell))
    assert torch.equal(other(x), first)
    keys = {
        random_key(c, name, kind, step)
        for c in (cell, Accumulate("fp16", rounding="stochastic"))
        for name in ("a", "b")
        for kind in Product
        for step in range(3)
    }
    assert len(keys) == 2 * 2 * 3 * 3


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_pass_has_the_random_bits_of_the_first(reentrant: bool) -> None:
    cell = Accumulate("fp8-e4m3", 8, rounding="stochastic")
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3))
        elision.elide(net, everywhere(cell))
        x = torch.linspace(-1, 1, 45).view(5, 9).requires_grad_()
        for _ in range(2):
            y = checkpoint(net, x, use_reentrant=reentrant) if again else net(x)
            y.square().sum().backward()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        found.append([*(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_compiled_layer_is_the_eager_one_in_one_graph() -> None:
    cell = Accumulate("fp16", 8, rounding="stochastic")
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
        elision.elide(net, everywhere(cell))
        x = torch.linspace(-1, 1, 144).view(2, 2, 6, 6)
        run = (
            torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
        )
        for _ in range(2):
            net.zero_grad()
            run(x).square().sum().backward()
        results.append([*(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_under_autocast_operands_have_its_dtype() -> None:
    layer, x = layers()[4]
    elision.elide(layer, everywhere(Accumulate("fp16", 4)))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32  # pyright: ignore


def test_such_a_layer_has_one_form_and_nothing_to_time() -> None:
    model = resnet8(in_channels=3, classes=4, width=8)
    elision.elide(model, everywhere(Accumulate("fp16", 64), weight=TopK(0.5)))
    assert all(
        layer._elision_forms is None
        for layer in model.modules()
        if isinstance(layer, elision.layers.ElidedLayer)
    )


def test_a_plain_layer_cannot_keep_an_accumulator() -> None:
    layer, _ = layers()[4]
    elision.elide(layer, everywhere(Accumulate("fp16", 8)))
    with pytest.raises(ValueError, match="sums in 'fp16 in chunks of 8'"):
        elision.export.finalize(layer)


def test_integers_that_are_none_are_refused_by_the_layers_product() -> None:
    layer, x = layers()[4]
    elision.elide(layer, everywhere(Accumulate("int32", 8)))
    with pytest.raises(ValueError, match="give the operand a Cast"):
        layer(x)
    layer, x = layers()[4]
    recipe = everywhere(
        Accumulate("int32", 8),
        input=Cast("dfp8"),
        weight=Cast("dfp8"),
        grad_output=Cast("dfp8"),
    )
    elision.elide(layer, recipe)
    passed(layer, x)


@pytest.mark.parametrize("kernels", [True, False])
def test_a_nan_makes_its_own_sums_nan_and_no_others(
    kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        reason = "no compiler"
        monkeypatch.setattr("elision.native.shared_object.unavailable", lambda: reason)
    cast = Cast("dfp8")
    recipe = everywhere(Accumulate("int32"), input=cast, weight=cast, grad_output=cast)
    torch.manual_seed(0)
    layer = elision.elide(nn.Linear(4, 3, bias=False), recipe)
    x = torch.randn(5, 4, requires_grad=True)
    grad = torch.randn(5, 3)
    layer(x).backward(grad)
    whole = layer.weight.grad.clone()  # pyright: ignore[reportOptionalMemberAccess]
    layer.zero_grad()
    grad[2, 1] = torch.nan
    layer(x).backward(grad)
    found = layer.weight.grad
    assert found is not None
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()
    assert whole.isfinite().all()


def test_a_sum_that_cannot_be_names_its_layer_and_product() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    elision.elide(model, everywhere(Accumulate("int32")))
    with pytest.raises(
        ValueError, match=r"^forward of layer '0': a sum in int32 needs"
    ):
        model(torch.rand(2, 4))
