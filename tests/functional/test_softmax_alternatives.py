"""Taylor softmax, softmax with a margin, both, their losses: values, gradients, range."""

import math
import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.functional import (
    RangeWarning,
    forget_warnings,
    log_sm_softmax,
    log_sm_taylor_softmax,
    log_taylor_softmax,
    sm_softmax,
    sm_softmax_loss,
    sm_taylor_softmax,
    sm_taylor_softmax_loss,
    taylor_softmax,
    taylor_softmax_loss,
)
from elision.functional.softmax import argument_of_minimum

Z = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
ORDERS = (2, 4, 6, 8, 10)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Every test may be warned; none but those that look is to fail of it."""
    forget_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        yield
    forget_warnings()


def series(z: Tensor, order: int) -> Tensor:
    """``f_n(z)``, term by term."""
    return sum(
        (z**k / math.factorial(k) for k in range(1, order + 1)), torch.ones_like(z)
    )


def by_definition(z: Tensor, order: int, dim: int = -1) -> Tensor:
    f = series(z, order)
    return f / f.sum(dim, keepdim=True)


@pytest.mark.parametrize(
    ("order", "p"),
    [
        (2, [0.5556, 0.2778, 0.1111, 0.0556]),
        (4, [0.6316, 0.2444, 0.0902, 0.0338]),
        (6, [0.6429, 0.2376, 0.0874, 0.0322]),
    ],
)
def test_values_of_the_reference(order: int, p: list[float]) -> None:
    assert taylor_softmax(Z, order).tolist() == pytest.approx(p, abs=5e-5)


def test_it_is_not_invariant_to_shifts() -> None:
    expected = [0.4111, 0.2889, 0.1889, 0.1111]
    assert taylor_softmax(Z + 3).tolist() == pytest.approx(expected, abs=5e-5)


def test_margins_of_the_reference() -> None:
    target = torch.tensor(0)
    assert sm_softmax(Z, target, 0.6)[0].item() == pytest.approx(0.4981, abs=5e-5)
    found = sm_taylor_softmax(Z, target, 0.6)[0].item()
    assert found == pytest.approx(0.4580, abs=5e-5)


def test_without_a_margin_or_a_target_it_is_the_plain_form() -> None:
    target = torch.tensor(1)
    for p in (sm_softmax(Z, target, 0.0), sm_softmax(Z), sm_softmax(Z, None, 3.0)):
        assert torch.equal(p, Z.softmax(-1))
    for p in (sm_taylor_softmax(Z, target, 0.0, 4), sm_taylor_softmax(Z, order=4)):
        assert torch.equal(p, taylor_softmax(Z, 4))


def test_many_terms_are_softmax() -> None:
    assert torch.allclose(taylor_softmax(Z, 30), Z.softmax(-1), atol=1e-12)


@given(
    order=st.sampled_from(ORDERS),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_values_and_gradients_are_those_of_the_definition(
    order: int, shape: list[int], seed: int, data: st.DataObject
) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    generator = torch.Generator().manual_seed(seed)
    z = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    expected, found = by_definition(z, order, dim), taylor_softmax(z, order, dim)
    assert torch.allclose(found, expected, rtol=1e-9)
    log = log_taylor_softmax(z, order, dim)
    assert torch.allclose(log, expected.log(), rtol=1e-9, atol=1e-9)
    for value, oracle in ((found, expected), (log, expected.log())):
        ours, theirs = (
            torch.autograd.grad((v * weight).sum(), z, retain_graph=True)[0]
            for v in (value, oracle)
        )
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_infinite_rule_gives_the_gradient_of_softmax_in_terms_of_p() -> None:
    z = Z.clone().unsqueeze(0).requires_grad_()
    loss = taylor_softmax_loss(z, torch.tensor([2]), 2, backward="infinite")
    (found,) = torch.autograd.grad(loss, z)
    one = F.one_hot(torch.tensor([2]), 4)
    assert torch.allclose(found, taylor_softmax(z, 2) - one)
    (finite,) = torch.autograd.grad(taylor_softmax_loss(z, torch.tensor([2]), 2), z)
    ratio = series(z, 1) / series(z, 2)
    assert torch.allclose(finite, ratio * (taylor_softmax(z, 2) - one))


# Torch's own rules of forward mode are scripted.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_gradients_of_gradients_and_transforms() -> None:
    z = torch.randn(
        3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    z.requires_grad_()

    def function(z: Tensor) -> Tensor:
        return log_taylor_softmax(z, 4)

    assert torch.autograd.gradgradcheck(function, (z,))
    z = z.detach()
    assert torch.allclose(torch.vmap(function)(z), function(z))
    jacobian = torch.func.jacfwd(function)(z[0])
    assert torch.allclose(jacobian, torch.func.jacrev(function)(z[0]))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nothing_overflows(order: int, dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max / 4
    z = torch.tensor([top, 300.0, -300.0, 0.0, -top], dtype=dtype, requires_grad=True)
    p = taylor_softmax(z, order)
    expected = by_definition(z.detach().double(), order)
    assert p.dtype == dtype
    if expected.isfinite().all():
        assert torch.allclose(p.double(), expected, atol=4 * torch.finfo(dtype).eps)
    assert p.isfinite().all()
    log_taylor_softmax(z, order)[0].backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_masked_places_take_no_part() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        lowest = torch.finfo(dtype).min
        for mask in (-math.inf, lowest, 0.75 * lowest):
            z = torch.tensor([1.0, mask, 0.0], dtype=dtype, requires_grad=True)
            p = taylor_softmax(z, 2)
            assert p.tolist() == pytest.approx([2.5 / 3.5, 0, 1 / 3.5], rel=1e-2)
            p[0].backward()
            assert z.grad is not None
            assert z.grad[1] == 0
            assert z.grad.isfinite().all()
        closed = torch.full((3,), lowest, dtype=dtype)
        assert torch.equal(taylor_softmax(closed), closed.softmax(0))
    assert taylor_softmax(torch.full((3,), -math.inf)).isnan().all()


def test_nan_stays() -> None:
    assert taylor_softmax(torch.tensor([math.nan, 1.0])).isnan().all()


def test_minima_of_the_reference() -> None:
    expected = [(-1.0, 0.5), (-1.60, 0.270), (-2.18, 0.149)]
    for order, (place, value) in zip((2, 4, 6), expected, strict=True):
        found = argument_of_minimum(order)
        assert found == pytest.approx(place, abs=5e-3)
        z = torch.tensor([found], dtype=torch.float64)
        assert series(z, order).item() == pytest.approx(value, abs=1e-3)
    for order, value in ((8, 0.083), (10, 0.047)):
        z = torch.tensor([argument_of_minimum(order)], dtype=torch.float64)
        assert series(z, order).item() == pytest.approx(value, abs=1e-3)


def test_the_side_that_falls_is_said_once() -> None:
    below = torch.tensor([0.0, -2.0])
    equal = taylor_softmax(below)
    assert equal[0] == equal[1]  # f_2(-2) = f_2(0)
    forget_warnings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        taylor_softmax(below, check=False)
        taylor_softmax(torch.tensor([0.0, -0.9, -math.inf]))
        assert not caught
        taylor_softmax(below)
        taylor_softmax(below)
        log_taylor_softmax(torch.tensor([0.0, -1.7]), 4)
    assert [w.category for w in caught] == [RangeWarning] * 2
    assert "taylor_softmax(order=2): logits below -1, where" in str(caught[0].message)
    assert "log_taylor_softmax(order=4): logits below -1.6" in str(caught[1].message)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_are_minus_the_logarithm(reduction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 5, 2, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 5, (6, 2), generator=generator)
    target[0, 0] = -100
    index = target.clamp(min=0).unsqueeze(1)
    weight = torch.rand(5, generator=generator, dtype=torch.float64)
    pairs = [
        (taylor_softmax_loss, log_taylor_softmax(z, 4, 1), {"order": 4}),
        (sm_softmax_loss, log_sm_softmax(z, target, 0.3, 1), {"margin": 0.3}),
        (
            sm_taylor_softmax_loss,
            log_sm_taylor_softmax(z, target, 0.3, 4, 1),
            {"margin": 0.3, "order": 4},
        ),
    ]
    for loss, log_p, arguments in pairs:
        found = loss(z, target, **arguments, weight=weight, reduction=reduction)
        each = -log_p.gather(1, index).squeeze(1) * weight[index.squeeze(1)]
        each[0, 0] = 0
        total = weight[index.squeeze(1)].sum() - weight[index[0, 0, 0]]
        expected = {"none": each, "sum": each.sum(), "mean": each.sum() / total}
        assert torch.allclose(found, expected[reduction])


def test_a_loss_leaves_out_the_index_it_is_told_to() -> None:
    z, target = torch.randn(3, 4), torch.tensor([1, 3, 2])
    for loss in (taylor_softmax_loss, sm_softmax_loss, sm_taylor_softmax_loss):
        found = loss(z, target, ignore_index=3)
        assert torch.allclose(found, loss(z[[0, 2]], target[[0, 2]]))


def test_margin_zero_is_cross_entropy() -> None:
    z, target = torch.randn(3, 4), torch.tensor([1, 3, 2])
    assert torch.allclose(sm_softmax_loss(z, target, 0.0), F.cross_entropy(z, target))
    one = z[0]
    assert torch.allclose(
        sm_softmax_loss(one, target[0], 0.5),
        -log_sm_softmax(one, target[0], 0.5)[target[0]],
    )


def test_bad_arguments() -> None:
    z = torch.zeros(2, 3)
    for order in (1, 3, 7):
        with pytest.raises(ValueError, match=rf"order={order}"):
            taylor_softmax(z, order)
    with pytest.raises(ValueError, match="must be an integer >= 2"):
        taylor_softmax(z, 2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="'finite' or 'infinite'"):
        taylor_softmax(z, backward="exact")
    with pytest.raises(
        ValueError, match=r"sm_softmax\(margin=-1\): must be a number >= 0"
    ):
        sm_softmax(z, torch.tensor([0, 1]), -1)
    for function in (taylor_softmax, sm_softmax, sm_taylor_softmax):
        with pytest.raises(TypeError, match="real floating point"):
            function(z.int())
