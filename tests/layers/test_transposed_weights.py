"""Weights of transposed convolutions: scales, slices and masks follow their outputs."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import elision
from elision import Recipe
from elision.formats import format_named
from elision.layers import Table, elided_layers, plan_of, states_of
from elision.layers.turned import turned_table
from elision.methods import (
    DST,
    NM,
    SET,
    Bf16,
    Gradual,
    Mx,
    RigL,
    SRigL,
    Static,
)
from elision.operands import (
    TRANSFORMS,
    Cast,
    Chain,
    LearnedThreshold,
    Mask,
    Project,
    TopK,
    TopKSlices,
    TopNofM,
    Transform,
    links_of,
)
from elision.operands.outputs_first import OutputsFirst, turned, turned_shape
from elision.products import Product
from elision.topology.pattern import Turned, pattern_named

pytestmark = pytest.mark.filterwarnings(
    "ignore::elision.topology.install.UnattachedWarning"
)

sizes = st.integers(1, 3)


@given(sizes, sizes, sizes, st.lists(sizes, max_size=3))
def test_turning_twice_gives_the_weight_back(
    groups: int, inputs: int, outputs: int, kernel: list[int]
) -> None:
    weight = torch.randn(groups * inputs, outputs, *kernel)
    found = turned(weight, groups)
    assert found.shape == turned_shape(tuple(weight.shape), groups)
    assert torch.equal(turned(found, groups), weight)
    for group in range(groups):
        own = found[group * outputs : (group + 1) * outputs]
        rows = weight[group * inputs : (group + 1) * inputs]
        assert torch.equal(own, rows.transpose(0, 1))


def layer_of(groups: int) -> Any:
    torch.manual_seed(0)
    return nn.ConvTranspose2d(8, 12, 3, groups=groups)


def of_weight(transform: Transform) -> Recipe:
    row = {"weight": transform}
    rows = {Product.FORWARD: row, Product.INPUT_GRAD: row}
    return Recipe("weights", Table(rows))


READING = [
    Project(3, "channel"),
    Project(1, "channel"),
    Project(1, "channel", gradient="scaled"),
    TopKSlices(0.5, "filter"),
    TopKSlices(0.5, "channel"),
    TopNofM(1, 2),
    Cast("mxfp8"),
    Cast("int4:over=channel", axis=0),
    Chain((TopK(0.5), Cast("mxfp8", axis=0))),
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transform", READING, ids=str)
def test_a_weight_is_transformed_as_that_of_a_plain_convolution(
    transform: Transform, groups: int
) -> None:
    """The layer reads what a convolution with the same outputs and inputs would read."""
    layer = elision.elide(layer_of(groups), of_weight(transform), engine="torch")
    seen = turned(layer.weight.detach(), groups)
    expected = turned(transform(seen, [], True), groups)
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    with elision.record(layer) as trace:
        layer(x).square().sum().backward()
    for product in trace:
        if "weight" in product.operands:
            assert torch.equal(product.operands["weight"], expected)
    plain = nn.Conv2d(8, 12, 3, groups=groups)
    with torch.no_grad():
        plain.weight.copy_(turned(layer_of(groups).weight, groups))
    elision.elide(plain, of_weight(transform), engine="torch")
    with elision.record(plain) as other:
        plain(torch.randn(1, 8, 4, 4)).sum()
    read = next(iter(other)).operands["weight"]
    assert torch.equal(turned(read, groups), expected)


def test_a_gradient_of_its_own_is_that_of_the_turned_weight() -> None:
    transform = Project(1, "channel", gradient="scaled")
    layer = elision.elide(layer_of(2), of_weight(transform), engine="torch")
    x, weight = torch.randn(1, 8, 3, 3), layer.weight.detach().clone()
    layer(x).square().sum().backward()
    weight.requires_grad_()
    read = turned(transform.differentiable(turned(weight, 2), {}, True), 2)
    y = nn.functional.conv_transpose2d(x, read, layer.bias, groups=2)
    y.square().sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, weight.grad)


def test_only_what_reads_axes_sees_the_weight_turned() -> None:
    table = of_weight(Chain((Mask(), Cast("mxfp8")))).table
    found = turned_table(table, layer_of(2))[Product.FORWARD, "weight"]
    assert isinstance(found, Chain)
    assert found.links == (Mask(), OutputsFirst(Cast("mxfp8"), 2))
    assert [link for _, link in links_of(found)] == [Mask(), Cast("mxfp8")]
    assert str(found) == str(Chain((Mask(), Cast("mxfp8"))))
    for same in (of_weight(TopK(0.5)).table, of_weight(Cast("bf16")).table):
        assert turned_table(same, layer_of(2)) is same
    assert turned_table(table, nn.Conv2d(8, 12, 3)) is table


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_says_whether_it_reads_axes(name: str) -> None:
    made = {"Cast": Cast("bf16"), "TopK": TopK(0.5), "Mask": Mask()}
    kind = TRANSFORMS[name]
    axes = kind.reads_axes
    blind = ("Keep", "LearnedStep", "Mask", "TopK", "TopKShare")
    assert (axes is False) == (name in blind)
    if name in made:
        x = torch.randn(6, 4)
        assert not made[name].reads_axes
        state = list(made[name].initial_state().values())
        found = made[name](x.T.contiguous(), state, False).T
        assert torch.equal(found, made[name](x, state, False))


# --- rules ----------------------------------------------------------------------------


def outputs_of(layer: Any) -> Tensor:
    """The mask of a layer's weight, a row for each output channel."""
    use = plan_of(layer).use(Product.FORWARD, "weight")
    mask = states_of(layer, use)["mask"]
    assert mask.shape == layer.weight.shape
    return turned(mask, layer.groups).flatten(1)


def moved(recipe: Recipe, groups: int = 1, steps: int = 4) -> Any:
    layer = elision.elide(layer_of(groups), recipe, engine="torch")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    topology = elision.topology.attach(layer, optimizer)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        x = torch.randn(2, 8, 4, 4, generator=generator)
        layer(x).square().mean().backward()
        optimizer.step()
    assert topology is not None
    return layer


@pytest.mark.filterwarnings("ignore::elision.topology.install.ScheduleWarning")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda pattern: Static(0.5, pattern=pattern, dense=()),
        lambda pattern: RigL(0.5, every=2, pattern=pattern, dense=()),
        lambda pattern: SET(0.5, every=2, pattern=pattern, dense=()),
        lambda pattern: Gradual(0.5, end=4, every=2, pattern=pattern, dense=()),
    ],
    ids=["static", "rigl", "set", "gradual"],
)
def test_patterns_leave_out_whole_filters_and_channels(make: Any, groups: int) -> None:
    mask = outputs_of(moved(make("filter"), groups))
    assert set(mask.float().mean(1).tolist()) == {0.0, 1.0}
    assert int(mask.any(1).sum()) == 6
    layer = moved(make("channel"), groups)
    by_channel = outputs_of(layer).unflatten(1, (8 // groups, 9))
    inputs = by_channel.any(2).all(0)
    assert torch.equal(inputs[None, :, None].expand_as(by_channel), by_channel)
    blocks = outputs_of(moved(make("block-4x4"), groups)).unflatten(0, (3, 4))
    kept = blocks.unflatten(2, (-1, 4)).float().mean((1, 3))
    assert set(kept.flatten().tolist()) == {0.0, 1.0}


def test_turned_patterns_refuse_what_the_pattern_does_not_divide() -> None:
    pattern = Turned(pattern_named("block-12x4"))
    pattern.check("up", (8, 12, 3, 3))
    with pytest.raises(ValueError, match="layer up: blocks of 12x4 do not divide"):
        pattern.check("up", (12, 8, 3, 3))


@pytest.mark.filterwarnings("ignore::elision.topology.install.ScheduleWarning")
@pytest.mark.parametrize("groups", [1, 2])
def test_every_output_has_the_same_number_of_inputs(groups: int) -> None:
    recipe = SRigL(0.75, every=2, ablation=0.0, dense=())
    mask = outputs_of(moved(recipe, groups))
    assert set(mask.sum(1).tolist()) == {round(0.25 * 72 / groups)}


@pytest.mark.parametrize("groups", [1, 2])
def test_n_of_every_m_input_channels_are_kept(groups: int) -> None:
    layer = moved(NM(1, 2, dense=()), groups)
    with elision.record(layer) as trace:
        layer(torch.randn(1, 8, 4, 4))
    read = turned(next(iter(trace)).operands["weight"], groups)
    kept = (read != 0).movedim(1, -1).unflatten(-1, (-1, 2)).sum(-1)
    assert set(kept.flatten().tolist()) == {1}
    with pytest.raises(ValueError, match="does not divide its 8 input channels"):
        elision.elide(nn.Sequential(layer_of(1)), NM(1, 3, dense=()))


@pytest.mark.filterwarnings("ignore::elision.topology.install.ScheduleWarning")
def test_thresholds_are_learned_for_each_output() -> None:
    layer, steps = elision.elide(layer_of(2), DST(alpha=0.05, dense=())), []
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    elision.topology.attach(layer, optimizer)
    use = plan_of(layer).use(Product.FORWARD, "weight")
    plain: Any = elision.elide(nn.Conv2d(8, 12, 3, groups=2), DST(alpha=0.05, dense=()))
    with torch.no_grad():
        plain.weight.copy_(turned(layer.weight, 2))
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    elision.topology.attach(plain, other)
    for _ in range(3):
        # One gradient for both: what the rule makes of it is turned.
        gradient = torch.randn(layer.weight.shape)
        for m, o, g in (
            (layer, optimizer, gradient),
            (plain, other, turned(gradient, 2)),
        ):
            o.zero_grad()
            (m.weight * g).sum().backward()
            o.step()
        steps.append(states_of(layer, use)["threshold"].clone())
        assert torch.equal(steps[-1], states_of(plain, use)["threshold"])
        assert torch.equal(turned(layer.weight.detach(), 2), plain.weight.detach())
    assert steps[-1].shape == (12,)
    assert not torch.equal(steps[0], steps[-1])
    assert LearnedThreshold() == plan_of(plain).uses[use]


def test_weights_are_rounded_between_steps_along_their_inputs() -> None:
    recipe = Mx(updates="mxfp8", update_rounding="nearest", dense=())
    layer = moved(recipe, 1, steps=1)
    seen = turned(layer.weight.detach(), 1)
    format = format_named("mxfp8")
    assert torch.equal(format.round(seen, axis=1), seen)


def test_shapes_and_names_are_the_weight_s() -> None:
    model = elision.elide(nn.Sequential(layer_of(2)), Static(0.5, dense=()))
    topology = elision.topology.attach(model, torch.optim.SGD(model.parameters(), 0.1))
    assert topology.masks()["0"].shape == model[0].weight.shape
    (weight,) = topology.weights
    assert weight.shape == (8, 6, 3, 3)
    assert weight.turned_shape == (12, 4, 3, 3)
    half = elision.elide(nn.Sequential(layer_of(2)), Bf16(dense=()))
    assert [n for n, _ in elided_layers(half)] == ["0"]
