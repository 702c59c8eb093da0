"""Networks for phones and microcontrollers: their sizes, their scaling, their refusals."""

from typing import Any

import pytest
import torch
from torch import nn

from elision.workloads import ALL_MODELS, layer_shapes, make_model
from elision.workloads.models.efficientnet import COMPOUND
from elision.workloads.models.small_blocks import repeats
from elision.workloads.models.squeezenet import Fire

SMALL = (
    "squeezenet",
    "mobilenet-v1",
    "mobilenet-v2",
    "mobilenet-v3-small",
    "mobilenet-v3-large",
    "efficientnet-b0",
)


def built(name: str, side: int = 224, **options: Any) -> nn.Module:
    """A network without values, for 1000 classes."""
    with torch.device("meta"):
        return make_model(name, classes=1000, image_size=side, **options)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, side: int, *, depthwise: bool = False) -> int:
    return sum(
        geometry.dense_macs
        for _, geometry in layer_shapes(model, (1, 3, side, side))
        if not depthwise or getattr(geometry, "groups", 1) > 1
    )


@pytest.mark.parametrize(
    ("name", "options", "count", "normalising", "million", "depthwise"),
    # Counted on torchvision's and timm's networks (models-and-search, section 2.1).
    [
        ("squeezenet", {}, 1_248_424, 0, 818.92, 0),
        ("squeezenet", {"version": "1.1"}, 1_235_496, 0, 349.15, 0),
        ("squeezenet", {"version": 1.1}, 1_235_496, 0, 349.15, 0),
        ("mobilenet-v1", {}, 4_231_976, 21_888, 568.74, 17.39),
        ("mobilenet-v2", {}, 3_504_872, 34_112, 300.77, 20.72),
        ("mobilenet-v3-large", {}, 5_483_032, None, 216.59, 18.39),
        ("mobilenet-v3-small", {}, 2_542_856, None, 56.51, 7.46),
        ("efficientnet-b0", {}, 5_288_548, None, 385.81, 34.53),
    ],
)
def test_sizes_at_224_are_the_known_ones(
    name: str,
    options: dict[str, Any],
    count: int,
    normalising: int | None,
    million: float,
    depthwise: float,
) -> None:
    model = built(name, **options)
    assert parameters(model) == count
    assert round(macs(model, 224) / 1e6, 2) == million
    assert round(macs(model, 224, depthwise=True) / 1e6, 2) == depthwise
    if normalising is not None:
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert sum(map(parameters, norms)) == normalising


@pytest.mark.parametrize(
    ("size", "count", "giga"),
    [
        ("b0", 5_288_548, 0.386),
        ("b1", 7_794_184, 0.687),
        ("b2", 9_109_994, 0.994),
        ("b3", 12_233_232, 1.827),
        ("b4", 19_341_616, 4.394),
        ("b5", 30_389_784, 10.266),
        ("b6", 43_040_704, 19.068),
        ("b7", 66_347_960, 37.746),
    ],
)
def test_width_and_depth_make_every_published_efficientnet(
    size: str, count: int, giga: float
) -> None:
    width, depth, side = COMPOUND[size]
    model = built("efficientnet-b0", side, width=width, depth=depth)
    assert parameters(model) == count
    assert round(macs(model, side) / 1e9, 3) == giga


def test_the_modules_of_squeezenet_have_the_papers_parameters() -> None:
    found = [
        parameters(m) for m in built("squeezenet").modules() if isinstance(m, Fire)
    ]
    assert found == [11920, 12432, 45344, 49440, 104880, 111024, 188992, 197184]


@pytest.mark.parametrize("name", SMALL)
def test_every_multiplier_changes_what_it_names(name: str) -> None:
    plain = built(name, 64)
    layers, work = len(layer_shapes(plain, (1, 3, 64, 64))), macs(plain, 64)
    assert parameters(built(name, 64, width=0.5)) < parameters(plain)
    deep = built(name, 64, depth=2.0)
    assert len(layer_shapes(deep, (1, 3, 64, 64))) > layers
    assert len(layer_shapes(built(name, 64, depth=0.1), (1, 3, 64, 64))) < layers
    assert parameters(built(name, 64, kernel=7)) > parameters(plain)
    # Every image after the stem has about four times the positions, where none was lost.
    assert macs(built(name, 64, stem_stride=1), 64) > 2.5 * work
    assert macs(plain, 128) > 2.5 * work


@pytest.mark.parametrize("name", SMALL)
def test_the_blocks_of_a_stage_are_multiplied_and_rounded_up(name: str) -> None:
    assert [repeats(n, 1.1) for n in (1, 2, 4)] == [2, 3, 5]
    twice, plain = built(name, depth=2.0), built(name)
    # The depthwise convolutions, or fire modules, count the blocks.
    assert blocks(twice) == 2 * blocks(plain)
    # No repeated block halves the image once more.
    sizes = [
        layer_shapes(model, (1, 3, 224, 224))[-2][1].shape_of("input")
        for model in (plain, twice)
    ]
    assert sizes[0] == sizes[1]


def blocks(model: nn.Module) -> int:
    return sum(
        isinstance(m, Fire) or (isinstance(m, nn.Conv2d) and m.groups > 1)
        for m in model.modules()
    )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 0.0}, r"width=0\.0\): must be a number > 0"),
        ({"depth": -1.0}, r"depth=-1\.0\): must be a number > 0"),
        ({"kernel": 4}, r"kernel=4\): must be odd"),
        ({"kernel": 0}, r"kernel=0\): must be an integer >= 1"),
        ({"stem_stride": 3}, r"stem_stride=3\): must be 1 or 2"),
        (
            {"resolution": 0.5},
            r"has no option 'resolution'; its options: .*stem_stride",
        ),
    ],
)
def test_a_scaling_that_cannot_be_is_refused(
    name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        built(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("squeezenet", {"version": "2"}, r"version='2'\): must be '1.0' or '1.1'"),
        ("mobilenet-v3-small", {"norm_momentum": 0}, r"norm_momentum=0\): .*\(0, 1\]"),
        ("efficientnet-b0", {"stochastic_depth": 1.0}, r"stochastic_depth=1\.0"),
        ("ds-cnn", {"width": 0.5}, r"DsCnn\(width=0\.5\): must be an integer"),
        ("tiny-resnet8", {"width": 0}, r"TinyResNet8\(width=0\): must be an integer"),
    ],
)
def test_an_option_of_one_network_is_checked(
    name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        built(name, **options)


def test_scores_of_squeezenet_may_be_below_zero_where_they_are_not_rectified() -> None:
    for rectified in (True, False):
        torch.manual_seed(0)
        model = make_model("squeezenet", width=0.25, rectified=rectified)
        least = float(model(torch.randn(4, 3, 32, 32)).detach().min())
        assert (least >= 0) == rectified
    with pytest.raises(ValueError, match=r"rectified=2\): must be True or False"):
        make_model("squeezenet", rectified=2)


def test_an_example_skips_the_block_that_stochastic_depth_drops() -> None:
    torch.manual_seed(0)
    model = make_model("efficientnet-b0", width=0.25, stochastic_depth=0.9, dropout=0.0)
    block = model.get_submodule("features.6.3").train()
    x = torch.randn(64, *_input_of(block))
    same = (block(x) == x).flatten(1).all(1)
    # Dropped with probability 0.9·14/16: that of the fifteenth of sixteen blocks.
    assert 0.6 < float(same.float().mean()) < 0.95
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


def _input_of(block: nn.Module) -> tuple[int, int, int]:
    conv = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
    return conv.in_channels, 3, 3


@pytest.mark.parametrize(
    ("name", "given", "image", "count", "averages", "million"),
    # Parameters and MACs counted from the benchmark's reference code, layer by layer.
    [
        ("tiny-resnet8", {"classes": 10}, (3, 32, 32), 78_186, 480, 12.501632),
        ("ds-cnn", {"classes": 12}, (1, 49, 10), 23_756, 1_152, 2.656768),
        ("autoencoder", {}, (1, 5, 128), 267_928, 2_064, 0.264192),
        (
            "mobilenet-v1",
            {"classes": 2, "width": 0.25},
            (3, 96, 96),
            # Without the 2,736 biases that the benchmark's convolutions have.
            213_586,
            2 * 2_736,
            7.489664,
        ),
    ],
)
def test_the_networks_of_mlperf_tiny_have_its_shapes(
    name: str,
    given: dict[str, Any],
    image: tuple[int, int, int],
    count: int,
    averages: int,
    million: float,
) -> None:
    with torch.device("meta"):
        model = make_model(name, in_channels=image[0], image_size=image[1:], **given)
    assert parameters(model) == count
    kept = [b.numel() for b in model.buffers() if b.dim()]
    assert sum(kept) == averages
    shapes = layer_shapes(model, (1, *image))
    assert sum(g.dense_macs for _, g in shapes) / 1e6 == pytest.approx(
        million, abs=1e-9
    )


def test_the_first_layer_of_ds_cnn_halves_the_spectrogram_and_rounds_up() -> None:
    model = make_model("ds-cnn", in_channels=1, classes=12, image_size=(49, 10))
    [(_, first), *_] = layer_shapes(model, (1, 1, 49, 10))
    assert first.shape_of("grad_output") == (1, 64, 25, 5)


def test_the_autoencoder_gives_back_as_many_values_as_it_takes() -> None:
    model = make_model("autoencoder", in_channels=1, image_size=(5, 128))
    sizes = [layer.out_features for layer in model.modules() if _linear(layer)]
    assert sizes == [128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    assert model(torch.randn(2, 1, 5, 128)).shape == (2, 640)
    assert "autoencoder" in ALL_MODELS


def _linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear)
