"""The networks against their published sizes, and against torchvision's own."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import elision
from elision.products import Conv2dGeometry, MatmulGeometry, Product
from elision.workloads import MODELS, layer_shapes, make_model

SMALL = {
    "vgg16": {"width": 4},
    "densenet121": {"growth": 4},
    "densenet121-imagenet": {"growth": 4},
    "resnet18": {"width": 4},
    "resnet18-imagenet": {"width": 4},
    "resnet50": {"width": 4},
    "resnet50-imagenet": {"width": 4},
    "squeezenet": {"width": 0.25},
    "mobilenet-v1": {"width": 0.25},
    "mobilenet-v2": {"width": 0.25},
    "mobilenet-v3-small": {"width": 0.25},
    "mobilenet-v3-large": {"width": 0.25},
    "efficientnet-b0": {"width": 0.25, "stochastic_depth": 0.0},
    "ds-cnn": {"width": 8},
}


def small(name: str, **how: Any) -> nn.Module:
    return make_model(name, **SMALL.get(name, {}), **how)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, side: int) -> int:
    return sum(g.dense_macs for _, g in layer_shapes(model, (1, 3, side, side)))


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        # torchvision's documentation of its weights.
        ("resnet18-imagenet", 1000, 11_689_512),
        ("resnet50-imagenet", 1000, 25_557_032),
        ("densenet121-imagenet", 1000, 7_978_856),
        ("mobilenet-v2", 1000, 3_504_872),
        # Widely used CIFAR implementations of these networks, 10 classes.
        ("resnet20", 10, 269_722),
        ("resnet18", 10, 11_173_962),
        ("vgg16", 10, 14_728_266),
        ("wrn16-8", 10, 10_961_370),
        ("densenet121", 10, 6_956_298),
    ],
)
def test_the_number_of_parameters_is_the_published_one(name, classes, published):
    with torch.device("meta"):
        assert parameters(make_model(name, classes=classes)) == published


@pytest.mark.parametrize(
    ("name", "gmac"),
    # torchvision's documentation, "GFLOPS" of its weights (which are MACs).
    [
        ("resnet18-imagenet", 1.814),
        ("resnet50-imagenet", 4.089),
        ("densenet121-imagenet", 2.834),
        ("mobilenet-v2", 0.301),
    ],
)
def test_the_macs_at_224_are_the_published_ones(name, gmac):
    with torch.device("meta"):
        model = make_model(name, classes=1000, image_size=224)
    assert round(macs(model, 224) / 1e9, 3) == gmac


def test_the_weights_of_resnet50s_layers_are_the_published_number():
    with torch.device("meta"):
        model = make_model("resnet50-imagenet", classes=1000)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert sum(m.weight.numel() for m in layers) == 25_502_912


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_on_any_small_image(name):
    model = small(name, in_channels=2, classes=3, image_size=28)
    scores = model(torch.randn(2, 2, 28, 28))
    assert scores.shape == (2, 3)
    scores.sum().backward()
    # Every parameter takes part, and the gradient reaches it.
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_decides_every_weight(name):
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return small(name).state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


# torch's counter does not look into nn.LSTM.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "lstm"])
def test_layer_shapes_count_what_torch_counts(name):
    model = small(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).eval()(torch.randn(1, 3, 32, 32))
    # Attention's products of two activations have no weight and are no layer.
    by_operator = counter.get_flop_counts()["Global"]
    counted = sum(n for op, n in by_operator.items() if "attention" not in str(op))
    assert 2 * macs(model, 32) == counted


def test_layer_shapes_leave_the_model_as_it_was():
    model = small("resnet18").train()
    model.layer1.eval()
    before = copy.deepcopy(model.state_dict())
    layer_shapes(model, (2, 3, 8, 8))
    assert model.training
    assert not model.layer1.training
    assert not model.layer1[0].training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_layer_shapes_are_in_order_of_execution():
    model = small("resnet18")
    shapes = layer_shapes(model, (2, 3, 32, 32))
    assert shapes[0] == (
        "conv1",
        Conv2dGeometry(2, 3, 32, 32, 4, (3, 3), padding=(1, 1)),
    )
    assert shapes[-1] == ("fc", MatmulGeometry(2, 32, 10))
    assert len(shapes) == 21


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, (4, 2), padding="same"),
        nn.Conv2d(3, 4, 3, padding="valid", dilation=2),
        nn.Conv2d(3, 4, 3, 2, padding=(1, 2), padding_mode="reflect"),
        nn.Conv2d(4, 4, (3, 1), (1, 2), padding=(1, 0), groups=2),
    ],
    ids=str,
)
def test_layer_shapes_of_a_convolution_give_its_output(conv):
    x = torch.randn(2, conv.in_channels, 9, 8)
    [(_, geometry)] = layer_shapes(nn.Sequential(conv), tuple(x.shape))
    assert geometry.shape_of("grad_output") == tuple(conv(x).shape)
    assert geometry.shape_of("weight") == tuple(conv.weight.shape)


def test_padding_that_a_geometry_can_say_is_said():
    def geometry(**how) -> Conv2dGeometry:
        model = nn.Sequential(nn.Conv2d(3, 4, (3, 5), **how))
        [(_, found)] = layer_shapes(model, (1, 3, 9, 8))
        return found

    assert geometry(padding="same") == geometry(padding=(1, 2))
    reflected = geometry(padding=(1, 2), padding_mode="reflect")
    assert (reflected.height, reflected.width, reflected.padding) == (11, 12, (0, 0))


def test_a_repeated_layer_appears_once_for_each_call():
    shapes = layer_shapes(make_model("lstm", image_size=8), (2, 3, 8, 8))
    names = [name for name, _ in shapes]
    assert names.count("lstm.weight_hh_l0") == 8
    assert names.count("classifier") == 1


def test_the_lstm_reads_an_image_row_by_row():
    model, x = make_model("lstm", image_size=(4, 3), width=5), torch.randn(2, 3, 4, 3)
    cell = nn.LSTMCell(9, 5)
    cell.load_state_dict(
        {k.removesuffix("_l0"): v for k, v in model.lstm.state_dict().items()}
    )
    state = None
    for row in range(4):
        state = cell(x[:, :, row].flatten(1), state)
    torch.testing.assert_close(model(x), model.classifier(state[0]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: make_model("resnet9"), "unknown model 'resnet9'.*did you mean"),
        (lambda: make_model("resnet8", depth=3), "no option 'depth'.*: width"),
        (lambda: make_model("jax:resnet"), "unknown model library 'jax'.*timm"),
        (lambda: make_model("cnn", classes=0), r"Cnn\(classes=0\)"),
        (lambda: make_model("cnn", width=2.5), r"Cnn\(width=2.5\)"),
        (lambda: make_model("transformer", image_size=30), "patch=4.*must divide"),
        (lambda: make_model("transformer", heads=3), "heads=3.*must divide"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet8", "transformer"])
def test_layer_shapes_are_what_a_recording_sees(name):
    model = make_model(name, classes=3, image_size=16)
    x = torch.randn(2, 3, 16, 16)
    with elision.record(elision.elide(model, elision.methods.Dense())) as trace:
        model(x).sum().backward()
    seen = {
        (p.name, p.geometry)
        for p in trace
        # Attention's own two products have no weight and are no layer.
        if p.kind is Product.FORWARD and not p.name.endswith((".qk", ".pv"))
    }
    assert seen == set(layer_shapes(elision.restore(model), tuple(x.shape)))


def test_layer_shapes_of_the_lstm_have_the_work_that_a_recording_sees():
    """Which has one product of the input for all rows, and layers by their part's name."""
    model, x = make_model("lstm", classes=3, image_size=8), torch.randn(2, 3, 8, 8)
    with elision.record(elision.elide(model, elision.methods.Dense())) as trace:
        model(x).sum().backward()
    seen, wanted = Counter(), Counter()
    for p in trace:
        if p.kind is Product.FORWARD:
            seen[p.name] += p.geometry.dense_macs
    for name, geometry in layer_shapes(elision.restore(model), tuple(x.shape)):
        wanted[name.replace(".weight_", ".")] += geometry.dense_macs
    assert seen == wanted
