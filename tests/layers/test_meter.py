"""Work by rule and work as measured, against published ratios and torch's counter."""

import pytest
import torch
from sparse_models import MOVING, elided, gradient, sgd, small_net, train
from torch.utils.flop_counter import FlopCounterMode

import elision
from elision import Product, methods
from elision.layers import elided_layers
from elision.topology import densities, work
from elision.workloads import layer_shapes, make_model


@pytest.fixture(scope="module")
def resnet50():
    """Shapes and multiply-accumulates of ResNet-50 at 224x224, by layer."""
    with torch.device("meta"):
        model = make_model("resnet50-imagenet", classes=1000, image_size=224)
    layers = layer_shapes(model, (1, 3, 224, 224))
    shapes = {name: geometry.shape_of("weight") for name, geometry in layers}
    return shapes, {name: geometry.dense_macs for name, geometry in layers}


@pytest.mark.parametrize(
    ("sparsity", "ratio"), [(0.8, 0.416), (0.9, 0.244), (0.95, 0.125)]
)
def test_training_ratio_of_rigl_on_resnet50(resnet50, sparsity, ratio):
    shapes, macs = resnet50
    found = densities(shapes, sparsity, "erk")
    shares = {name: work.rigl(d, every=100) for name, d in found.items()}
    assert work.training_ratio(shares, macs) == pytest.approx(ratio, abs=5e-4)


@pytest.mark.parametrize(("sparsity", "reduction"), [(0.8, 0.777), (0.9, 0.874)])
def test_inference_reduction_of_swat_u_on_resnet50(resnet50, sparsity, reduction):
    _, macs = resnet50
    shares = {n: work.swat(1 - sparsity, 1 - sparsity) for n in macs if n != "conv1"}
    assert 1 - work.inference_ratio(shares, macs) == pytest.approx(reduction, abs=5e-4)


@pytest.mark.parametrize(
    ("sparsity", "uniform", "erk"), [(0.8, 0.784, 0.591), (0.9, 0.883, 0.760)]
)
def test_training_reduction_of_swat_without_the_first_input_gradient(
    resnet50, sparsity, uniform, erk
):
    shapes, macs = resnet50
    d = 1 - sparsity
    shares = {n: work.swat(d, d) for n in macs if n != "conv1"}
    found = work.training_ratio(shares, macs, first_input_grad=False)
    assert 1 - found == pytest.approx(uniform, abs=6e-4)
    shares = {n: work.swat(d, d) for n, d in densities(shapes, sparsity, "erk").items()}
    found = work.training_ratio(shares, macs, first_input_grad=False)
    assert 1 - found == pytest.approx(erk, abs=6e-4)


@pytest.mark.parametrize(
    ("network", "published"),
    [("vgg16", 0.897), ("wrn16-8", 0.900), ("densenet121", 0.898)],
)
def test_published_training_reduction_of_swat_u_on_cifar(network, published):
    # 90 % sparse weights and activations: 90 % less what the dense first layer takes.
    # Published figures are rounded to a tenth of a point and do not say whether the
    # first layer's input gradient counts; both ways lie within the rounding of it.
    with torch.device("meta"):
        model = make_model(network, classes=10, image_size=32)
    macs = {n: g.dense_macs for n, g in layer_shapes(model, (1, 3, 32, 32))}
    first = next(iter(macs))
    shares = {name: work.swat(0.1, 0.1) for name in macs if name != first}
    reductions = [
        1 - work.training_ratio(shares, macs, first_input_grad=counted)
        for counted in (True, False)
    ]
    assert min(abs(found - published) for found in reductions) < 5e-4


def test_resprop_at_reuse_90_costs_two_fifths_of_dense(resnet50):
    _, macs = resnet50
    shares = dict.fromkeys(macs, work.resprop(0.9, batch=10_000))
    assert work.training_ratio(shares, macs) == pytest.approx(0.4, abs=1e-4)


def test_choosing_masks_costs_next_to_nothing_on_resnet50(resnet50):
    shapes, macs = resnet50
    weights = sum(torch.Size(shape).numel() for shape in shapes.values())
    rigl = work.mask_update(2 * weights, macs, every=100)
    # 2 · 25,502,912 values every 100 steps, 3 · 4.089 G multiply-accumulates an image.
    assert rigl == pytest.approx(4.16e-5, rel=1e-2)


def test_the_shares_of_a_step_are_the_formulas():
    macs, d = {"a": 300, "b": 100}, {"a": 0.1, "b": 0.5}
    fd, fs = 400, 0.1 * 300 + 0.5 * 100

    def ratio(rule):
        return work.training_ratio({n: rule(d[n]) for n in macs}, macs)

    assert ratio(work.fixed_mask) == pytest.approx(fs / fd)
    assert ratio(work.dense_gradient) == pytest.approx((2 * fs + fd) / (3 * fd))
    expected = (3 * fs * 100 + 2 * fs + fd) / 101 / (3 * fd)
    assert ratio(work.rigl) == pytest.approx(expected)
    assert work.training_ratio({"a": work.meprop(0.1)}, macs) == pytest.approx(
        (3 * 100 + 300 + 2 * 30) / 1200
    )


def measured(name, steps):
    """The meter of some steps, with layer multiply-accumulates and densities."""
    model, optimizer, topology = elided(MOVING[name])
    with elision.metered(model) as meter:
        train(model, optimizer, steps)
    return topology, meter


def test_the_dense_case_equals_torchs_flop_counter():
    model = small_net()
    counter = FlopCounterMode(display=False)
    with counter:
        gradient(model, sgd(model), 0)
    with elision.metered(model) as meter:
        gradient(model, sgd(model), 0)
    assert 2 * meter.total().dense_macs == counter.get_total_flops()
    assert meter.total().ratio == 1


@pytest.mark.parametrize("name", ["static", "set", "rigl", "snfs"])
def test_the_meter_finds_what_the_rule_says(name):
    # SET and RigL hold each layer's density, SNFS up to its first move.
    steps = range(2) if name == "snfs" else range(6)
    topology, meter = measured(name, steps)
    rules = {
        "static": work.fixed_mask,
        "set": work.fixed_mask,
        "rigl": lambda d: work.rigl(d, every=2),  # one dense step in three
        "snfs": work.dense_gradient,
    }
    shares = {w.name: rules[name](w.density) for w in topology.weights}
    forward = {
        n: w.dense_macs for (n, p), w in meter.by_layer.items() if p is Product.FORWARD
    }
    expected = work.training_ratio(shares, forward, first_input_grad=False)
    assert meter.total().ratio == pytest.approx(expected, rel=1e-6)
    assert meter.by_product()[Product.FORWARD].ratio == pytest.approx(
        work.inference_ratio(shares, forward)
    )
    assert ("0", Product.INPUT_GRAD) not in meter.by_layer


def test_top_kast_asks_for_its_backward_set():
    topology, meter = measured("top-kast", range(3))
    for weight in topology.weights:
        done = meter.by_layer[weight.name, Product.WEIGHT_GRAD].ratio
        assert done == pytest.approx(float(weight.state("learns").float().mean()))
        assert done >= weight.density


def test_swat_on_a_network_costs_its_densities():
    model = elision.elide(small_net(), methods.Swat(0.75, dense=()))
    with elision.metered(model) as meter:
        gradient(model, sgd(model), 0)
    for (name, product), seen in meter.by_layer.items():
        layer = dict(elided_layers(model))[name]
        if product is not Product.WEIGHT_GRAD:
            kept = -(-layer.weight.numel() // 4)
            assert seen.done_macs / seen.dense_macs == pytest.approx(
                kept / layer.weight.numel()
            )
        else:
            # Rectified inputs may hold more zeros than asked for, never fewer by much.
            assert seen.ratio <= 0.25 + 1 / 64


def test_the_meter_logs_how_density_drifts_between_refreshes():
    model = elision.elide(small_net(), methods.Swat(0.75, refresh=3, dense=()))
    optimizer = sgd(model)
    weight, kept = model[7].weight, []
    for step in range(4):
        with elision.metered(model) as meter:
            gradient(model, optimizer, step)
        seen = meter.by_layer["7", Product.FORWARD]
        # Step 0 chose the threshold; until step 3 it stays while the weights grow.
        if step == 0:
            level = weight.detach().abs().flatten().sort(descending=True).values[63]
        if step < 3:
            share = float((weight.detach().abs() >= level).float().mean())
            assert seen.ratio == pytest.approx(share)
        kept.append(seen.densities["weight"])
        with torch.no_grad():
            weight *= 1.2
    assert kept[0] == kept[3] == 0.25
    assert kept[0] < kept[1] < kept[2]


def test_swat_erk_gives_each_layer_its_density():
    model = elision.elide(small_net(), methods.SwatErk(0.8))
    shapes = {n: tuple(layer.weight.shape) for n, layer in elided_layers(model)}
    found = densities(shapes, 0.8, "erk")
    with elision.metered(model) as meter:
        gradient(model, sgd(model), 0)
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        seen = meter.by_layer[name, Product.FORWARD].ratio
        assert seen == pytest.approx(found[name], abs=1 / size)
