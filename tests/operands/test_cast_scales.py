"""Cast: scales, roundings, overflow, and state that resumes."""

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import elision
from elision.formats import FLOATS, FORMATS
from elision.formats import round as rounded
from elision.layers.recipe import Recipe, Table
from elision.operands import Cast, Chain, Keep, Reuse, TopK
from elision.operands.delayed import follow, largest_magnitude
from elision.products import Product


def scaled(x: Tensor, name: str, factor: Tensor) -> Tensor:
    """The formula, in float64: ``s·round(x/s)``."""
    over = (x.double() / factor.double()).float()
    return (FLOATS[name].saturating.round(over).double() * factor.double()).to(x.dtype)


@pytest.mark.parametrize("name", ["fp8-e4m3", "fp8-e5m2", "fp16"])
@given(st.integers(0, 10_000), st.integers(-20, 20))
@settings(max_examples=20, deadline=None)
def test_scales_are_those_of_the_formula(name: str, seed: int, exponent: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 3, 2, generator=generator) * 2.0**exponent
    largest = FLOATS[name].largest
    whole = (x.abs().amax().double() / largest).float()
    assert torch.equal(Cast(name, "tensor")(x, [], True), scaled(x, name, whole))
    by_slice = (x.abs().amax((0, 2), keepdim=True).double() / largest).float()
    found = Cast(name, "channel", axis=1)(x, [], True)
    assert torch.equal(found, scaled(x, name, by_slice))
    lead = math.frexp(largest)[1]
    power = torch.tensor(2.0 ** (math.frexp(x.abs().amax().item())[1] - lead))
    assert torch.equal(Cast(name, "power-of-two")(x, [], True), scaled(x, name, power))


def test_delayed_scales_follow_from_earlier_steps() -> None:
    cast = Cast("fp8-e4m3", "delayed", history=2, margin=1)
    state, largest = cast.initial_state(), FLOATS["fp8-e4m3"].largest
    maxima, scale = [], 1.0
    for step, size in enumerate([4.0, 0.0, 0.5, torch.inf, 64.0, 1.0, 1.0]):
        x = torch.tensor([size, 0.3, -0.01])
        expected = FLOATS["fp8-e4m3"].saturating.round(x * scale) / scale
        assert torch.equal(cast.apply(x, state, True), expected), step
        finite = x[x.isfinite()].abs().amax().item()
        maxima = [finite, *maxima][:2]
        scale = (torch.tensor(largest) / max(maxima) / 2).item()
        assert state["scaling"].item() == scale
    before = copy.deepcopy(state)
    cast.apply(torch.tensor([1e6]), state, False)  # evaluation moves nothing
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_the_most_recent_maximum_and_zeros() -> None:
    cast = Cast("fp8-e5m2", "delayed", history=4, amax="most-recent")
    state = cast.initial_state()
    cast.apply(torch.tensor([8.0]), state, True)
    assert state["scaling"].item() == FLOATS["fp8-e5m2"].largest / 8
    cast.apply(torch.zeros(3), state, True)
    assert state["scaling"].item() == FLOATS["fp8-e5m2"].largest / 8
    assert cast.apply(torch.zeros(3), state, True).tolist() == [0.0, 0.0, 0.0]


def test_a_scale_beyond_float32_is_said_and_stays_finite() -> None:
    history, scale = torch.zeros(2), torch.ones(())
    with pytest.warns(RuntimeWarning, match="is beyond float32; it stays at") as caught:
        follow(history, scale, 1e-42, 448.0, 0, "max")
    assert scale.item() == torch.finfo(torch.float32).max
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        ([], 0.0),
        ([0.0, -0.0], 0.0),
        ([1.0, torch.nan, -3.0], 3.0),
        ([torch.nan], 0.0),
        ([-torch.inf, 2.0], 2.0),
    ],
)
def test_only_finite_magnitudes_count(values: list[float], largest: float) -> None:
    assert largest_magnitude(torch.tensor(values)) == largest


def test_overflow_saturates_or_shows() -> None:
    x = torch.tensor([1e5, -torch.inf, torch.nan])
    assert Cast("fp16")(x, [], True)[:2].tolist() == [65504.0, -65504.0]
    assert Cast("fp16", overflow="ieee")(x, [], True)[:2].tolist() == [
        torch.inf,
        -torch.inf,
    ]
    assert Cast("fp8-e4m3", overflow="ieee")(x, [], True).isnan().all()


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in FLOATS])
def test_formats_with_scales_round_along_the_axis(name: str) -> None:
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    for axis in (0, 1):
        found = Cast(name, axis=axis)(x, [], True)
        assert torch.equal(found, rounded(x, name, axis=axis))
    if name != "binary":  # it has no zero
        assert not Cast(name)(torch.zeros(2, 3), [], True).any()


def test_random_numbers_differ_by_place_and_step_and_resume() -> None:
    cast = Cast("fp4-e2m1", rounding="stochastic")
    x = torch.full((1000,), 0.3)
    here, there = cast.state_at("a"), cast.state_at("b")
    first = cast.apply(x, here, True)
    saved = copy.deepcopy(here)
    second = cast.apply(x, here, True)
    assert not torch.equal(first, second)
    assert not torch.equal(first, cast.apply(x, there, True))
    assert torch.equal(second, cast.apply(x, saved, True))
    other = Cast("fp4-e2m1", rounding="stochastic", seed=1).state_at("a")
    assert not torch.equal(first, cast.apply(x, other, True))
    # 0.3 lies between 0 and 0.5: within four standard errors of its mean.
    mean = (first.mean() + second.mean()).item() / 2
    assert abs(mean - 0.3) < 4 * 0.25 / 2000**0.5
    assert set(cast.apply(x, saved, False).tolist()) == {0.5}  # nearest


def test_layers_draw_different_numbers_whatever_the_number_of_threads() -> None:
    everywhere = {
        p: dict.fromkeys(p.operands, Cast("int4", rounding="stochastic"))
        for p in Product
    }

    def outputs(threads: int) -> list[Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            one, two = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
            with torch.no_grad():
                for layer in (one, two):
                    weight = torch.linspace(-1, 1, 4096).view(64, 64)
                    layer.weight.copy_(weight)
            model = elision.elide(
                nn.ModuleList([one, two]), Recipe("r", Table(everywhere)), "torch"
            )
            return [layer(torch.eye(64)) for layer in model]
        finally:
            torch.set_num_threads(before)

    first, second = outputs(1)
    assert not torch.equal(first, second)
    for alone, shared in zip((first, second), outputs(2), strict=True):
        assert torch.equal(alone, shared)


def test_a_reused_part_is_rounded_only_where_values_stand_alone() -> None:
    reuse = Reuse(0.5, initial_threshold=0.5)
    g = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for behind, splits in (
        (Cast("fp8-e5m2"), True),
        (Keep(), True),
        (Cast("fp8-e5m2", "tensor"), False),
        (Cast("dfp8"), False),
        (Cast("bf16", rounding="stochastic"), False),
    ):
        chain = Chain((reuse, behind))
        state = chain.state_at("here")
        state["0_reference"] = torch.zeros(1, 6)
        state["0_shared"] = torch.zeros(1, 6)
        for step in range(3):
            part = chain.reused(state)
            result = chain.apply(g + 0.1 * step, state, True)
        assert (part is not None) is splits
        if splits:
            assert part is not None
            same = (result - part) == 0
            # What the differences below the threshold leave is exactly zero.
            assert 0 < int(same.sum()) < same.numel()


def test_a_chain_of_a_mask_and_a_cast_says_what_the_mask_says() -> None:
    mask = elision.operands.Mask()
    chain = Chain((mask, Cast("bf16")))
    assert chain.limits_gradient
    assert not chain.writes_state
    state = chain.initial_state()
    state["0_mask"] = torch.tensor([True, False])
    state["0_gradient_density"].fill_(0.5)
    wanted = chain.wanted_gradient(state)
    assert wanted is not None
    assert wanted.tolist() == [True, False]
    x = torch.tensor([1.003, 2.0])
    assert chain(x, list(state.values()), True).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "cast",
    [
        Cast("bf16"),
        Cast("fp8-e4m3", "tensor"),
        Cast("fp8-e4m3", "delayed", history=3),
        Cast("mxfp8"),
        Cast("int8", rounding="stochastic"),
    ],
    ids=str,
)
def test_a_compiled_layer_rounds_as_an_eager_one(cast: Cast) -> None:
    rows = {p: dict.fromkeys(p.operands, Chain((TopK(0.5), cast))) for p in Product}
    torch.manual_seed(0)
    made = [nn.Linear(32, 32) for _ in range(2)]
    made[1].load_state_dict(made[0].state_dict())
    plain, other = (elision.elide(m, Recipe("r", Table(rows)), "torch") for m in made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            x = torch.randn(8, 32)
            outputs = [layer(x) for layer in (plain, compiled)]
            for y in outputs:
                y.square().sum().backward()
            assert torch.equal(*outputs)
    assert torch.equal(plain.weight.grad, other.weight.grad)  # pyright: ignore
