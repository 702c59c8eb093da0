"""Noise in the place of a rounding's error: of its size, of another shape, drawn anew."""

import math

import pytest
import torch
from torch import Tensor

from elision.operands import Cast, Noise
from elision.operands.base import State

SHAPES = ("gaussian", "uniform", "shuffled")
CAST = Cast("int4")


def operand(count: int = 20_000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def drawn(how: Noise, x: Tensor, place: str = "layer.input", step: int = 0) -> Tensor:
    """What the transform adds in a step of training."""
    state = how.state_at(place)
    state["step"].fill_(step)
    return how.apply(x, state, training=True) - x


def moment(x: Tensor, power: int) -> float:
    """A standardised moment about zero."""
    return float(
        x.double().pow(power).mean() / x.double().square().mean() ** (power / 2)
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cast", [CAST, Cast("int4", rounding="stochastic")], ids=str)
def test_noise_has_the_size_of_the_rounding(shape: str, cast: Cast) -> None:
    x = operand()
    state: State = cast.initial_state()
    error = cast.apply(x, state, training=True) - x
    found = drawn(Noise(cast, shape), x)  # pyright: ignore[reportArgumentType]
    # Of 20 000 numbers the deviation of a norm is half a per cent.
    assert float(found.norm() / error.norm()) == pytest.approx(1, abs=0.02)
    assert abs(float(found.mean() / found.std())) < 0.03


def test_shapes_are_those_of_their_names() -> None:
    """The fourth moment: 3 of a normal distribution, 9/5 of a uniform one."""
    x = operand()
    error = CAST.apply(x, {}, True) - x
    found = {shape: drawn(Noise(CAST, shape), x) for shape in SHAPES}  # pyright: ignore[reportArgumentType]
    assert moment(found["gaussian"], 4) == pytest.approx(3, abs=0.15)
    assert moment(found["uniform"], 4) == pytest.approx(1.8, abs=0.05)
    size = float(error.square().mean().sqrt())
    assert float(found["uniform"].abs().max()) <= math.sqrt(3) * size * (1 + 1e-5)
    assert float(found["gaussian"].abs().max()) > 3 * size
    # The very errors, but for the rounding of the sum, in another order.
    shuffled = found["shuffled"]
    torch.testing.assert_close(
        shuffled.sort().values, error.sort().values, atol=1e-6, rtol=0
    )
    assert abs(float(torch.corrcoef(torch.stack([shuffled, error]))[0, 1])) < 0.04


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_does_not_depend_on_the_values(shape: str) -> None:
    """Two equal values have errors of their own, which rounding gives them not."""
    x = operand().repeat_interleave(2)
    found = drawn(Noise(CAST, shape), x)  # pyright: ignore[reportArgumentType]
    pairs = found.view(-1, 2).T
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.04
    assert abs(float(torch.corrcoef(torch.stack([found, x]))[0, 1])) < 0.04


@pytest.mark.parametrize("shape", SHAPES)
def test_each_place_step_and_seed_has_numbers_of_its_own(shape: str) -> None:
    x = operand(2_000)
    how = Noise(CAST, shape)  # pyright: ignore[reportArgumentType]
    draws = [
        drawn(how, x),
        drawn(how, x, place="layer.weight"),
        drawn(how, x, step=1),
        drawn(Noise(CAST, shape, seed=1), x),  # pyright: ignore[reportArgumentType]
    ]
    between = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(between.abs().max()) < 0.12
    assert torch.equal(draws[0], drawn(how, x))


def test_a_step_of_training_is_counted_and_no_other() -> None:
    x, how = operand(8), Noise(CAST)
    state = how.state_at("layer.input")
    before = x.clone()
    assert torch.equal(how(x, list(state.values()), False), x)
    assert int(state["step"]) == 0
    how(x, list(state.values()), True)
    assert int(state["step"]) == 1
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_keeps_the_dtype_and_its_size_there(
    shape: str, dtype: torch.dtype
) -> None:
    """Errors of about 1e-4, the squares of which are no numbers of fp16."""
    x = ((operand().abs() + 0.5) * 1e-3).to(dtype)
    error = CAST.apply(x, {}, True).double() - x.double()
    how = Noise(CAST, shape)  # pyright: ignore[reportArgumentType]
    noised = how.apply(x, how.state_at("x"), training=True)
    assert noised.dtype == dtype
    found = noised.double() - x.double()
    assert float(found.norm() / error.norm()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_rounding_leaves_alone_stays(shape: str) -> None:
    how = Noise(Cast("bf16"), shape)  # pyright: ignore[reportArgumentType]
    for x in (torch.zeros(3, 4), torch.arange(6.0).view(2, 3), torch.empty(0, 3)):
        assert torch.equal(how.apply(x, how.state_at("x"), training=True), x)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Noise(CAST, "pink"), "shape='pink'.*gaussian"),  # pyright: ignore[reportArgumentType]
        (lambda: Noise("int4"), "must be a Cast, got 'int4'"),  # pyright: ignore[reportArgumentType]
        (lambda: Noise(CAST, seed=-1), "seed=-1"),
        (lambda: Noise(Cast("fp8-e4m3", scale="delayed")), "delayed"),
    ],
)
def test_noise_that_cannot_be_is_said_in_one_line(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make()  # pyright: ignore[reportCallIssue]
    assert "\n" not in str(caught.value)
