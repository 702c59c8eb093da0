from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from elision.products import Conv2dGeometry, MatmulGeometry
from elision.workloads.shapes.networks import NETWORKS, network
from elision.workloads.shapes.random import model_layers


def parameters(name):
    return sum(int(np.prod(g.shape_of("weight"))) for _, g in network(name))


def macs(name):
    return sum(geometry.dense_macs for _, geometry in network(name))


@pytest.mark.parametrize(
    ("name", "layers", "millions_of_weights", "giga_macs"),
    [  # weights of the convolutional and linear layers, without biases and norms
        ("alexnet", 8, 61.1, 0.71),
        ("vgg-16", 16, 138.3, 15.47),
        ("resnet-50", 54, 25.5, 4.09),
        ("densenet-264", 265, 33.1, 5.8),  # 1 + 2 x 130 + 3 + 1: one more than its name
        ("inception-v4", 150, 42.6, 12.2),
        ("mobilenet-v2", 53, 3.47, 0.30),
    ],
)
def test_sizes_are_the_known_ones(name, layers, millions_of_weights, giga_macs):
    assert len(network(name)) == layers
    assert parameters(name) / 1e6 == pytest.approx(millions_of_weights, rel=0.01)
    assert macs(name) / 1e9 == pytest.approx(giga_macs, rel=0.02)


def reference(name: str) -> tuple[nn.Module, int]:
    """The network as another library defines it, without memory for its weights."""
    from elision.workloads.libraries.torchvision import import_torchvision

    try:
        models = import_torchvision().models
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    if name == "inception-v4":
        timm = pytest.importorskip("timm")
        return timm.create_model("inception_v4"), 299
    if name == "densenet-264":
        return models.DenseNet(32, (6, 12, 64, 48), 64), 224
    builders = {
        "alexnet": models.alexnet,
        "vgg-16": models.vgg16,
        "resnet-50": models.resnet50,
        "mobilenet-v2": models.mobilenet_v2,
    }
    return builders[name](), 224


def geometries_of(model: nn.Module, size: int, batch: int) -> list:
    """Shapes of the layers as they run, seen by hooks."""
    seen = []

    def look(module, inputs, _):
        if isinstance(module, nn.Linear):
            rows = inputs[0].numel() // module.in_features
            geometry = MatmulGeometry(rows, module.in_features, module.out_features)
        else:
            geometry = Conv2dGeometry.of(
                tuple(inputs[0].shape),
                tuple(module.weight.shape),
                stride=module.stride,
                padding=module.padding,
                dilation=module.dilation,
                groups=module.groups,
            )
        seen.append(geometry)

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(look)
    model.eval()(torch.empty(batch, 3, size, size, device="meta"))
    return seen


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_every_layer_is_that_of_an_independent_definition(name):
    with torch.device("meta"):
        model, size = reference(name)
    expected = Counter(geometries_of(model, size, batch=2))
    assert Counter(geometry for _, geometry in network(name, batch=2)) == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_names_are_distinct_and_the_batch_is_carried(name):
    layers = network(name, batch=3)
    assert len({layer for layer, _ in layers}) == len(layers)
    ones = sum(geometry.dense_macs for _, geometry in network(name))
    assert sum(geometry.dense_macs for _, geometry in layers) == 3 * ones


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'resnet-50'"):
        network("resnet50")
    with pytest.raises(ValueError, match="batch"):
        network("alexnet", batch=0)


@pytest.mark.parametrize(
    "size", [{"input": 2**63, "batch": 1}, {"input": 32, "batch": 2**63}]
)
def test_a_size_beyond_torchs_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be an integer in \[1, 2147483647\]"):
        model_layers("cnn", **size)
