"""The rounding kernels, and torch's arithmetic where there are none, against the formulas."""

import itertools
from collections.abc import Iterator
from typing import cast, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from number_formats import SPECIAL, probes, same
from some_kernels import built
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from elision.formats import (
    FORMATS,
    Coded,
    Floating,
    Format,
    Integer,
    Rounding,
    Scaled,
    bitwise,
    fast_round,
    format_named,
    native,
)
from elision.native import shared_object

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
#: What needs more than the largest magnitude, or has no fraction.
WITHOUT = {"ternary", "ternary-twn", "binary", "log8", "pow2-4", "pow2-5"}
WITHOUT |= {name for name in FORMATS if name.startswith("uint")}
ODD: list[Format] = [
    Floating("flush", 5, 10, bias=15, subnormals=False),
    Floating("unsigned", 4, 3, bias=7, specials="nan", signed=False),
    Floating("full range", 8, 3, bias=127, saturates=True),
    Floating("one bit less", 6, 22, bias=70),
    Floating("low", 5, 5, bias=127),
    Floating("infinite", 4, 3, bias=7, specials="nan"),
    Integer("offset", 8, symmetric=False, point=3),
    Integer("counting", 5, signed=False),
]
CODED: list[Format] = [f for f in (*FORMATS.values(), *ODD) if isinstance(f, Coded)]
MORE = ("int4:block=24", "mxfp4:block=5", "mxint8:block=100", "int8:over=channel")
SHARED = [FORMATS[n] for n in FORMATS if n not in WITHOUT and not n.startswith("int")]
SHARED = [f for f in SHARED if isinstance(f, Scaled)]
SHARED += [cast(Scaled, format_named(n)) for n in ("int8", "int8-channel", *MORE)]


def by_name(format: Format) -> str:
    return format.name


@pytest.fixture(scope="module", params=["best", "portable"], autouse=True)
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """The library of this CPU; or the rounding kernels alone, built for any CPU."""
    if reason := shared_object.unavailable():
        pytest.skip(reason)
    if request.param == "best":
        shared_object.load()
        yield
        return
    library = built("portable", ("rounding", "scaled_rounding", "pool"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_object, "load", lambda: library)
        yield


def every_bfloat16() -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).float()


def any_floats(count: int, seed: int = 0) -> Tensor:
    """Floats of any bits."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (count,), generator=generator)
    return bits.to(torch.int32).view(torch.float32)


def wide_floats(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of many magnitudes, every 13th one special."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    x = x * torch.exp(4 * torch.randn(shape, generator=generator))
    flat = x.view(-1)
    flat[::13] = torch.tensor(SPECIAL).repeat(-(-flat.numel() // 130))[
        : len(flat[::13])
    ]
    return x


def check(
    x: Tensor, format: Format, rounding: Rounding, seed: int = 5, axis: int = -1
) -> None:
    before = x.clone()
    found = native.rounded(x, format, rounding, seed, axis)
    assert found is not None
    assert same(x, before)
    assert found.dtype == x.dtype
    assert found.stride() == torch.empty_like(x).stride()
    assert same(found, format.round(x, rounding, seed, axis))


@pytest.mark.parametrize("format", CODED, ids=by_name)
def test_bits_of_every_format_whose_codes_stand_alone(format: Format) -> None:
    x = torch.cat([every_bfloat16(), any_floats(100_000)])
    if format.bits <= 16:
        x = torch.cat([x, probes(cast(Coded, format))])
    for rounding in ROUNDINGS:
        check(x, format, rounding)
        check(x[3:20], format, rounding, seed=-1)


@pytest.mark.parametrize("format", SHARED, ids=by_name)
def test_bits_of_every_format_with_shared_scales(format: Scaled) -> None:
    shapes = [(3, 70), (2, 37, 9), (5, 33, 4, 4), (8, 3), (100, 1), (2, 34, 300), (7,)]
    for shape, rounding in itertools.product(shapes, ROUNDINGS):
        for axis in range(len(shape)):
            check(wide_floats(*shape), format, rounding, axis=axis)
    for scale in (1e-44, 1e-38, 1e-30, 1e37):
        x = torch.linspace(-1, 1, 33 * 41).view(33, 41) * scale
        for rounding in ROUNDINGS:
            check(x, format, rounding, axis=0)
    check(any_floats(64 * 64).view(64, 64), format, "nearest", axis=1)


def test_the_formats_without_a_kernel_are_these() -> None:
    x = torch.ones(4, 4)
    found = {n for n in FORMATS if native.rounded(x, FORMATS[n]) is None}
    assert found == WITHOUT
    for name in WITHOUT:
        assert same(fast_round(FORMATS[name], x), FORMATS[name].round(x))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_floating_format(data: st.DataObject) -> None:
    exponent_bits = data.draw(st.integers(2, 8))
    fraction_bits = data.draw(st.integers(1, 23))
    bias = data.draw(st.integers(-10, 140))
    specials = data.draw(st.sampled_from(["ieee", "nan", "fnuz", "finite"]))
    flags = {n: data.draw(st.booleans()) for n in ("subnormals", "saturates")}
    format = Floating(
        "any", exponent_bits, fraction_bits, bias, specials=specials, **flags
    )
    x = any_floats(4000, seed=bias)
    centred = x.view(torch.int32) & 0x807F_FFFF | (127 << 23)
    near = centred.view(torch.float32) * torch.linspace(-9, 9, 4000).exp2().round()
    for rounding in ROUNDINGS:
        for values in (x, near):
            found = native.rounded(values, format, rounding)
            if found is not None:
                assert same(found, format.round(values, rounding))
            assert same(
                fast_round(format, values, rounding), format.round(values, rounding)
            )


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_shape_and_strides(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 11), min_size=0, max_size=4))
    x = wide_floats(*shape, seed=len(shape))
    x = x.permute(data.draw(st.permutations(range(x.dim()))))
    for dim in range(x.dim()):
        step = data.draw(st.integers(1, 2))
        start = min(data.draw(st.integers(0, 1)), x.shape[dim])
        x = x[(slice(None),) * dim + (slice(start, None, step),)]
    if data.draw(st.booleans()) and x.dim():
        x = x[:1].expand(3 if len(x) else 0, *x.shape[1:])
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    x = x.to(dtype)
    format = data.draw(st.sampled_from([*CODED[:4], *SHARED]))
    axis = data.draw(st.integers(-max(x.dim(), 1), max(x.dim(), 1) - 1))
    check(x, format, data.draw(st.sampled_from(ROUNDINGS)), seed=2**40 + 1, axis=axis)


@pytest.mark.parametrize(
    "name", ["fp8-e5m2", "mxfp8", "nvfp4", "dfp16", "int8-channel"]
)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_no_number_of_threads_changes_a_bit(name: str, rounding: Rounding) -> None:
    x = wide_floats(40, 70, 5, 7)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(native.rounded(x, FORMATS[name], rounding, 1, axis=1))
    finally:
        torch.set_num_threads(before)
    assert same(*found)


def test_the_last_channel_may_be_the_fastest_in_memory() -> None:
    x = wide_floats(2, 34, 5, 6).contiguous(memory_format=torch.channels_last)
    for name, rounding in itertools.product(
        ("bf16", "mxfp8", "int8-channel"), ROUNDINGS
    ):
        check(x, FORMATS[name], rounding, axis=1)


def test_top_k_and_rounding_in_one_pass() -> None:
    x = wide_floats(3, 1001)
    for format, above in itertools.product(CODED, (-1.0, 0.0, 0.7, 1e4, torch.inf)):
        for rounding in ROUNDINGS:
            found = native.largest_rounded(x, above, format, rounding, seed=1)
            assert found is not None
            dropped = torch.zeros(()) if above >= 0 else x
            kept = torch.where(x.abs() <= above, dropped, format.round(x, rounding, 1))
            assert same(found, kept)
    assert native.largest_rounded(x, 0.5, FORMATS["mxfp8"]) is None


def test_what_no_kernel_reads_is_rounded_by_torch() -> None:
    x = torch.linspace(-3, 3, 99)
    for name in ("fp8-e4m3", "int8", "mxfp4"):
        format = FORMATS[name]
        assert native.rounded(x.double(), format) is None
        assert same(fast_round(format, x.double()), format.round(x.double()))
        assert native.rounded(x.to("meta"), format) is None
    bf16 = FORMATS["bf16"]
    mapped = torch.vmap(lambda row: fast_round(bf16, row))(x.view(9, 11))
    assert same(mapped, bf16.round(x).view(9, 11))
    with pytest.raises(ValueError, match="rounding='up'"):
        fast_round(FORMATS["int8"], x, cast(Rounding, "up"))
    with pytest.raises(ValueError, match="axis=2"):
        fast_round(FORMATS["mxfp8"], x, axis=2)


def test_a_few_values_build_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("built")

    monkeypatch.setattr(shared_object, "loaded", lambda: False)
    monkeypatch.setattr(shared_object, "unavailable", fail)
    few = torch.linspace(-9, 9, native.SMALL - 1)
    for name in ("bf16", "mxfp8"):
        assert same(fast_round(FORMATS[name], few), FORMATS[name].round(few))
    with pytest.raises(AssertionError, match="built"):
        fast_round(FORMATS["bf16"], torch.zeros(native.SMALL))
    monkeypatch.setattr(shared_object, "unavailable", lambda: "no compiler")
    many = wide_floats(native.SMALL)
    for format in (FORMATS["bf16"], FORMATS["fp6-e3m2"], FORMATS["mxfp8"]):
        assert same(fast_round(format, many), format.round(many))


@pytest.mark.parametrize("format", CODED, ids=by_name)
def test_torchs_float32_arithmetic_gives_the_same_bits(format: Format) -> None:
    x = torch.cat([every_bfloat16(), any_floats(100_000)])
    found = bitwise.nearest(x, format)
    # Without: whole numbers, one zero, no sign.
    single = ("fp8-e4m3fnuz", "fp8-e5m2fnuz", "unsigned")
    assert (found is None) == (isinstance(format, Integer) or format.name in single)
    assert found is None or same(found, format.round(x))


def test_one_operator_in_a_graph() -> None:
    scaled, alone = FORMATS["mxfp8"], FORMATS["fp8-e4m3"]

    def both(x: Tensor) -> Tensor:
        return fast_round(alone, 2 * x, "stochastic", 3) + fast_round(scaled, x, axis=0)

    x = torch.randn(64, 12).t()
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    assert same(compiled(x), both(x))
    with FakeTensorMode():
        assert fast_round(scaled, torch.empty(3, 4)).shape == (3, 4)


def test_the_result_is_a_tensor_of_its_own_without_a_gradient() -> None:
    x = torch.ones(8, requires_grad=True)
    for format in (FORMATS["fp32"], FORMATS["bf16"], FORMATS["int8"]):
        found = fast_round(format, x)
        assert not found.requires_grad
        assert found.data_ptr() != x.data_ptr()
