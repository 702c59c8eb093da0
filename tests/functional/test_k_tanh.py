"""K-TanH: the published table, the kernel to the last bit, gradients, what goes through."""

import copy
import itertools
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_kernels import built
from torch import Tensor

from elision.functional import (
    PUBLISHED,
    KTanhTable,
    fitted,
    k_gelu,
    k_sigmoid,
    k_silu,
    k_swish,
    k_tanh,
)
from elision.functional import tanh as tanh_module
from elision.functional.table import inputs, values
from elision.native.shared_object import unavailable

ENGINES = ("torch", "native")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and unavailable():
        pytest.skip(str(unavailable()))
    return request.param


def every_bfloat16() -> Tensor:
    return torch.arange(1 << 16).to(torch.int16).view(torch.bfloat16)


def bits(x: Tensor) -> Tensor:
    wide = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
    return x.contiguous().view(wide[x.dtype])


def by_definition(x: float, bits: int) -> float:
    """The algorithm of the paper, one number at a time."""
    if x != x or abs(x) < 0.25:
        return x
    sign = -1.0 if bits & 0x8000 else 1.0
    if abs(x) > 3.75:
        return sign
    exponent, fraction = bits >> 7 & 255, bits & 127
    t = (exponent & 3) * 8 + (fraction >> 4)
    result = (fraction >> PUBLISHED.shift[t]) + PUBLISHED.offset[t]
    return sign * 2.0 ** (PUBLISHED.exponent[t] - 127) * (1 + result / 128)


def test_every_bfloat16_is_that_of_the_definition(engine: str) -> None:
    x = every_bfloat16()
    found = k_tanh(x, engine=engine)
    expected = torch.tensor(
        [by_definition(v, i) for i, v in enumerate(x.double().tolist())]
    )
    assert torch.equal(found.isnan(), x.isnan())
    assert torch.equal(found.nan_to_num().float(), expected.nan_to_num())
    assert torch.equal(found.signbit(), x.signbit())
    kept = (x.abs() < 0.25) | x.isnan()  # zeros, subnormals and payloads included
    assert torch.equal(bits(found)[kept], bits(x)[kept])


def test_kernel_equals_the_emulation_on_random_bits_of_float32(engine: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (1 << 20,), generator=generator)
    x = x.int().view(torch.float32)
    found, oracle = k_tanh(x, engine=engine), k_tanh(x.bfloat16(), engine="torch")
    assert torch.equal(found.isnan(), x.isnan())
    there = ~x.isnan()
    assert torch.equal(bits(found)[there], bits(oracle.float())[there])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (0.25, 0.25 * (1 + 1 / 128)),  # piece 8: 0.25 · (1 + (0 >> 1 + 1) / 128)
        (0.249, 0.2490234375),  # below the threshold: the bfloat16 itself
        (3.75, 0.5 * (1 + 127 / 128)),  # piece 7: 112 >> 6, and 126
        (3.765625, 1.0),
        (1.0, 0.75390625),
        (-1.0, -0.75390625),
        (float("inf"), 1.0),
        (-float("inf"), -1.0),
        (-0.0, -0.0),
        (1e-40, 9.184e-41),  # a subnormal, rounded to bfloat16
    ],
)
def test_single_values(x: float, y: float, engine: str) -> None:
    found = k_tanh(torch.tensor([x]), engine=engine)
    assert found.item() == pytest.approx(y, rel=1e-3, abs=0)
    assert found.signbit().item() == torch.tensor(y).signbit().item()


def test_errors_are_those_of_the_reference() -> None:
    errors = PUBLISHED.errors
    assert len(errors) == 497
    assert float(errors.max()) == pytest.approx(8.92e-3, rel=1e-3)
    assert float(errors.mean()) == pytest.approx(2.0e-3, rel=1e-2)
    octaves = [float(part.max()) for part in errors.split(128)]
    assert octaves == pytest.approx([7.0e-3, 8.9e-3, 7.7e-3, 5.7e-3], rel=1e-2)
    x = values(torch.arange(0x3E80, 0x4071, dtype=torch.int32))
    assert x[errors.argmax()] == pytest.approx(0.621, rel=1e-3)
    y = k_tanh(x.bfloat16()).float()
    assert int((y.diff() < 0).sum()) == 6


@pytest.mark.parametrize(
    ("function", "exact", "largest"),
    [
        (k_tanh, torch.tanh, 1.03e-2),
        (k_sigmoid, torch.sigmoid, 5.2e-3),
        (k_gelu, torch.nn.functional.gelu, 7.3e-3),
    ],
)
def test_errors_from_float32(
    function: Callable[[Tensor], Tensor],
    exact: Callable[[Tensor], Tensor],
    largest: float,
) -> None:
    x = torch.linspace(-8, 8, 1_000_001)
    error = float((function(x).double() - exact(x.double())).abs().max())
    assert 0.8 * largest < error < 1.02 * largest


def test_swish_is_silu_and_its_error_grows() -> None:
    x = torch.linspace(-5, 5, 100_001)
    error = (k_silu(x) - torch.nn.functional.silu(x)).abs()
    assert k_swish is k_silu
    assert float(error.max()) == pytest.approx(1.5e-2, rel=0.2)


def test_the_fit_is_no_worse_in_any_piece_and_has_the_same_maximum() -> None:
    found = fitted()
    assert found.largest_error == PUBLISHED.largest_error
    better = 0
    for piece in range(32):
        x = inputs(piece)
        ours, theirs = (
            float((values(t.lookup(x)) - values(x).tanh()).abs().max())
            for t in (found, PUBLISHED)
        )
        assert ours <= theirs
        better += ours < theirs
    assert better == 8


def test_the_kernel_takes_any_table(engine: str) -> None:
    x = every_bfloat16()
    found = k_tanh(x, table=fitted(), engine=engine)
    oracle = k_tanh(x, table=fitted(), engine="torch")
    assert torch.equal(bits(found), bits(oracle))
    assert not torch.equal(bits(found), bits(k_tanh(x, engine=engine)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_is_that_of_tanh_in_its_value(dtype: torch.dtype, engine: str) -> None:
    x = torch.linspace(-5, 5, 1003).to(dtype).requires_grad_()
    grad = torch.randn(1003, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = k_tanh(x, engine=engine)
    (found,) = torch.autograd.grad(y, x, grad)
    y = y.detach().float()
    assert torch.equal(found, (grad.float() * (1 - y * y)).to(dtype))
    assert found.dtype == dtype
    assert not found[x.abs() > 3.8].any()


# Torch's own rules of forward mode are scripted.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_gradient_of_a_gradient_and_transforms() -> None:
    x = torch.linspace(-3, 3, 11).requires_grad_()
    (first,) = torch.autograd.grad(k_tanh(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    y = k_tanh(x).detach()
    assert torch.allclose(second, -2 * y * (1 - y * y))
    rows = x.detach().repeat(3, 1)
    assert torch.equal(torch.vmap(k_tanh)(rows), k_tanh(rows))
    slope = torch.func.vmap(torch.func.grad(k_tanh))(x.detach())
    assert torch.allclose(slope, 1 - y * y)
    value, tangent = torch.func.jvp(k_tanh, (x.detach(),), (torch.ones(11),))
    assert torch.equal(value, y)
    assert torch.allclose(tangent, 1 - y * y)


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    order=st.randoms(use_true_random=False),
    stepped=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_shape_and_strides(
    shape: list[int], order: object, stepped: bool, dtype: torch.dtype
) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x = x.to(dtype)
    dims = list(range(len(shape)))
    order.shuffle(dims)  # type: ignore[attr-defined]
    x = x.permute(dims)
    if stepped and x.dim():
        x = x[..., ::2]
    x.requires_grad_()
    oracle, found = k_tanh(x, engine="torch"), k_tanh(x)
    assert torch.equal(found, oracle)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = torch.autograd.grad(oracle, x, grad)[0]
    assert torch.equal(torch.autograd.grad(found, x, grad)[0], expected)
    broad = torch.ones((), dtype=dtype).expand(x.shape)
    expected = torch.autograd.grad(k_tanh(x, engine="torch"), x, broad)[0]
    assert torch.equal(torch.autograd.grad(k_tanh(x), x, broad)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types_go_by_bfloat16(dtype: torch.dtype) -> None:
    x = torch.linspace(-5, 5, 101, dtype=dtype)
    found = k_tanh(x)
    assert found.dtype == dtype
    assert torch.equal(found, k_tanh(x.bfloat16()).to(dtype))


@pytest.mark.parametrize("size", [1, 31, 32, 33, 4095, 70_001])
def test_threads_and_rests_change_nothing(size: int, engine: str) -> None:
    x = 3 * torch.randn(size, generator=torch.Generator().manual_seed(size))
    oracle, before = k_tanh(x, engine="torch"), torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(k_tanh(x, engine=engine), oracle)
    finally:
        torch.set_num_threads(before)


def test_bad_arguments() -> None:
    x = torch.ones(3)
    for wrong in (torch.ones(3).int(), torch.ones(3, dtype=torch.complex64)):
        for function in (k_tanh, k_sigmoid, k_gelu):
            with pytest.raises(TypeError, match="real floating point"):
                function(wrong)
    with pytest.raises(ValueError, match="'auto' or 'torch' or 'native'"):
        k_tanh(x, engine="cuda")
    with pytest.raises(ValueError, match=r"takes plain float32 and bfloat16.*float64"):
        k_tanh(x.double(), engine="native")
    with pytest.raises(ValueError, match="must be 32 integers, got 3"):
        KTanhTable((1, 2, 3), PUBLISHED.shift, PUBLISHED.offset)
    with pytest.raises(ValueError, match=r"integers in \[0, 7\]"):
        KTanhTable(PUBLISHED.exponent, (8,) * 32, PUBLISHED.offset)
    with pytest.raises(ValueError, match=r"fraction must stay in \[0, 127\]"):
        KTanhTable(PUBLISHED.exponent, PUBLISHED.shift, (127,) * 32)


def test_without_a_compiler_the_oracle_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.linspace(-5, 5, 101)
    expected = k_tanh(x)
    monkeypatch.setattr(tanh_module, "unavailable", lambda: "no C++ compiler")
    assert torch.equal(k_tanh(x), expected)
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        k_tanh(x, engine="native")


def test_the_kernel_without_vector_instructions_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if unavailable():
        pytest.skip(str(unavailable()))
    portable = built("portable", ("k_tanh", "pool"))
    monkeypatch.setattr(tanh_module, "load", lambda: portable)
    for x in (every_bfloat16(), 3 * torch.randn(1003)):
        found, oracle = (k_tanh(x, engine=e) for e in ("native", "torch"))
        there = ~x.isnan()
        assert torch.equal(bits(found)[there], bits(oracle)[there])
        assert found[~there].isnan().all()


def test_tables_are_values() -> None:
    assert (
        pickle.loads(pickle.dumps(PUBLISHED)) == PUBLISHED == copy.deepcopy(PUBLISHED)
    )
    for first, second in itertools.combinations((PUBLISHED, fitted()), 2):
        assert first != second
