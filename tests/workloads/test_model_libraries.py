"""Networks of timm and torchvision, and the networks here against torchvision's.

What needs a library that is not installed is skipped; the refusals are always tested.
"""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from elision.workloads import layer_shapes, make_model
from elision.workloads.libraries.torchvision import import_torchvision

needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed"
)
needs_timm = pytest.mark.skipif(
    find_spec("timm") is None or find_spec("torchvision") is None,
    reason="timm or torchvision is not installed",
)


@needs_torchvision
@pytest.mark.parametrize(
    ("ours", "options", "theirs"),
    [
        ("resnet18-imagenet", {}, "resnet18"),
        ("resnet50-imagenet", {}, "resnet50"),
        ("densenet121-imagenet", {}, "densenet121"),
        ("mobilenet-v2", {}, "mobilenet_v2"),
        ("squeezenet", {}, "squeezenet1_0"),
        ("squeezenet", {"version": "1.1"}, "squeezenet1_1"),
        ("mobilenet-v3-small", {}, "mobilenet_v3_small"),
        ("mobilenet-v3-large", {}, "mobilenet_v3_large"),
        ("efficientnet-b0", {}, "efficientnet_b0"),
        ("efficientnet-b0", {"width": 1.1, "depth": 1.2}, "efficientnet_b2"),
    ],
)
def test_a_network_here_is_torchvisions(ours, options, theirs):
    torch.manual_seed(0)
    mine = make_model(ours, classes=7, **options).eval()
    reference = make_model(f"torchvision:{theirs}", classes=7).eval()
    reference.load_state_dict(mine.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(mine(x), reference(x))
    shape = (2, 3, 224, 224)
    assert layer_shapes(mine, shape) == layer_shapes(reference, shape)


@needs_torchvision
@pytest.mark.parametrize("width", [0.5, 0.75])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mobilenet-v2", "mobilenet_v2"),
        ("mobilenet-v3-small", "mobilenet_v3_small"),
        ("mobilenet-v3-large", "mobilenet_v3_large"),
    ],
)
def test_a_narrow_network_here_is_torchvisions(ours, theirs, width):
    models = import_torchvision().models
    with torch.device("meta"):
        mine = make_model(ours, classes=1000, width=width)
        reference = getattr(models, theirs)(width_mult=width)
    shapes = [
        {key: value.shape for key, value in model.state_dict().items()}
        for model in (mine, reference)
    ]
    assert shapes[0] == shapes[1]


@needs_torchvision
@pytest.mark.parametrize("kind", ["mobilenet_v3_small", "efficientnet_b0"])
def test_normalisation_has_the_constants_of_torchvision(kind):
    with torch.device("meta"):
        reference = make_model(f"torchvision:{kind}")
        mine = make_model(
            {"mobilenet_v3_small": "mobilenet-v3-small"}.get(kind, "efficientnet-b0")
        )
    constants = [
        [(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for model in (mine, reference)
    ]
    assert constants[0] == constants[1]


@needs_timm
def test_mobilenet_v1_is_timms():
    with torch.device("meta"):
        mine = make_model("mobilenet-v1", classes=7)
        theirs = make_model("timm:mobilenetv1_100", classes=7, image_size=224)
    counts = [sum(p.numel() for p in model.parameters()) for model in (mine, theirs)]
    assert counts[0] == counts[1]
    shapes = [
        [geometry for _, geometry in layer_shapes(model, (2, 3, 224, 224))]
        for model in (mine, theirs)
    ]
    assert shapes[0] == shapes[1]


@needs_torchvision
def test_the_features_of_vgg16_are_torchvisions():
    mine = make_model("vgg16")
    with torch.device("meta"):
        reference = make_model("torchvision:vgg16_bn")
    assert isinstance(reference.features, nn.Module)
    expected = {k: v.shape for k, v in reference.features.state_dict().items()}
    assert {k: v.shape for k, v in mine.features.state_dict().items()} == expected


@needs_torchvision
def test_torchvisions_first_convolution_takes_other_channels():
    model = make_model("torchvision:resnet18", in_channels=1, classes=4)
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)


@needs_torchvision
def test_a_network_of_torchvision_answers_with_scores_in_training():
    with torch.device("meta"):
        model = make_model("torchvision:googlenet", classes=4).train()
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 4)


@needs_torchvision
def test_a_vision_transformer_of_torchvision_takes_the_image_size():
    with torch.device("meta"):
        model = make_model("torchvision:vit_b_16", image_size=32)
    assert len(layer_shapes(model, (1, 3, 32, 32))) > 20
    with pytest.raises(ValueError, match="takes square images"):
        make_model("torchvision:vit_b_16", image_size=(32, 48))


@needs_timm
def test_a_network_of_timm_trains():
    model = make_model("timm:test_resnet", in_channels=1, classes=3, image_size=32)
    loss = model(torch.randn(2, 1, 32, 32)).sum()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@needs_timm
@pytest.mark.parametrize(
    ("name", "side"), [("test_vit", 48), ("tf_efficientnet_b0", 33)]
)
def test_the_shapes_of_timms_networks_are_the_ones_that_ran(name, side):
    # tf_efficientnet pads its input itself, unevenly: the products are of that image.
    model = make_model(f"timm:{name}", image_size=side).eval()
    outputs: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _m, _i, y: outputs.append(y.shape))
    with torch.no_grad():
        model(torch.randn(1, 3, side, side))
    seen, outputs = outputs, []
    shapes = [
        g.shape_of("grad_output") for _, g in layer_shapes(model, (1, 3, *[side] * 2))
    ]
    assert [torch.Size(s).numel() for s in shapes] == [s.numel() for s in seen]


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet19", "_utils"])
def test_an_unknown_network_of_torchvision_lists_the_known(name):
    with pytest.raises(
        ValueError, match=f"unknown torchvision model '{name}'.*resnet18"
    ):
        make_model(f"torchvision:{name}")


@needs_timm
def test_an_unknown_network_of_timm_suggests_some():
    with pytest.raises(ValueError, match=r"unknown timm model 'resnet19'.*resnet18"):
        make_model("timm:resnet19")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_not_installed_says_what_to_install(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install 'elision\[torchvision\]'"
    ):
        make_model(f"{library}:resnet18")


@needs_torchvision
def test_timm_alone_missing_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elision\[timm\]'"):
        make_model("timm:resnet18")


@needs_torchvision
def test_importing_torchvision_twice_gives_the_same_module():
    assert import_torchvision() is import_torchvision()
    assert importlib.import_module("torchvision") is import_torchvision()


@needs_torchvision
def test_torchvision_imports_in_a_fresh_process_with_warnings_as_errors():
    code = (
        "from elision.workloads.libraries.torchvision import import_torchvision as load; "
        "print(load().models.resnet18().fc.out_features)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "1000", done.stderr
