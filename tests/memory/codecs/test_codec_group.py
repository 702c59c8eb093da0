"""Group quantisation: unbiased, bounded, zeros kept, one result on every backend."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.memory.codecs import GroupQuant, group_kernels, group_torch
from elision.memory.codecs.group import ROUNDINGS
from elision.memory.saved.roles import Role, Slot

SLOT = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
RELU_SLOT = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT, nonnegative=True)


def values(size, seed, kind="normal"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=generator)
    if kind == "relu":
        x = x.relu()
    elif kind == "constant":
        x = torch.full((size,), float(x[0]))
    elif kind == "wide":
        x = x * 10 ** torch.linspace(-30, 30, size)
    return x


cases = st.tuples(
    st.integers(1, 2000),
    st.integers(0, 10**6),
    st.sampled_from(["normal", "relu", "constant", "wide"]),
)


@settings(max_examples=60, deadline=None)
@given(
    case=cases,
    bits=st.integers(1, 8),
    rounding=st.sampled_from(ROUNDINGS),
    group=st.integers(1, 8),
)
def test_no_element_is_off_by_more_than_declared(case, bits, rounding, group):
    x = values(*case)
    codec = GroupQuant(bits, 8 * group, rounding)
    for slot in (SLOT, RELU_SLOT):
        y = x.relu() if slot.nonnegative else x
        packed = codec.pack(y, slot)
        restored = codec.unpack(packed)
        assert restored.shape == y.shape
        assert float((restored - y).abs().max()) <= codec.bound(packed)
        if slot.nonnegative and bits > 1:
            assert torch.equal(restored != 0, y > 0) or rounding == "dithered"
            assert not restored[y == 0].any()
            assert torch.equal(codec.unpack_sign(packed), (y > 0).float())


@settings(max_examples=60, deadline=None)
@given(
    case=cases,
    bits=st.integers(1, 8),
    rounding=st.sampled_from(ROUNDINGS),
    support=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_native_kernels_equal_the_torch_version(
    case, bits, rounding, support, seed
):
    group = 32
    x = values(*case)
    x = torch.cat([x, x.new_ones(-len(x) % group)])
    support = support and bits > 1
    random, dithered = rounding != "nearest", rounding == "dithered"
    results = []
    for module in (group_kernels, group_torch):
        codes = torch.zeros(len(x) // 8 * bits, dtype=torch.uint8)
        low, step = torch.zeros(2, len(x) // group)
        out, mask = torch.zeros(2, len(x))
        tensors = (x, codes, low, step, out, mask)
        if module is group_kernels:
            tensors = tuple(t.numpy() for t in tensors)
        a, c, lo, width, o, m = tensors
        module.quantise(a, group, bits, seed, random, support, c, lo, width)
        module.dequantise(c, group, bits, seed, dithered, support, lo, width, o)
        module.mask(c, group, bits, m)
        results.append((codes, low, step, out, mask))
        for grid in (low, step):  # stored as bfloat16 without loss
            assert torch.equal(grid.bfloat16().float(), grid)
    for native, oracle in zip(*results, strict=True):
        np.testing.assert_array_equal(native.numpy(), oracle.numpy())


def drawn(codec, x, slot, count=2000):
    """What is restored of ``x`` with ``count`` different seeds, which follow closely."""
    slots = (replace(slot, seed=seed) for seed in range(count))
    return torch.stack([codec.unpack(codec.pack(x, slot)) for slot in slots])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("slot", [SLOT, RELU_SLOT], ids=["any", "relu"])
@pytest.mark.parametrize("rounding", ["dithered", "stochastic"])
def test_random_rounding_is_unbiased(bits, slot, rounding):
    x = values(64, 3, "relu" if slot.nonnegative else "normal")
    draws = drawn(GroupQuant(bits, 64, rounding), x, slot)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4, 64, generator=generator)
    projected = (draws - x) @ directions.T
    error = projected.std(0) / len(draws) ** 0.5
    assert (projected.mean(0).abs() <= 4 * error + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_restored_in_their_own(dtype):
    x = values(500, 1).to(dtype)
    codec = GroupQuant(8)
    packed = codec.pack(x, SLOT)
    assert codec.unpack(packed).dtype is dtype
    assert float((codec.unpack(packed) - x).abs().max()) <= codec.bound(packed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_packed(bad):
    x = values(500, 1)
    x[123] = bad
    assert GroupQuant(4).pack(x, SLOT) is None


def test_dither_leaves_an_error_that_does_not_depend_on_the_value():
    x = torch.linspace(0, 3, 64)
    step = 1.0
    dithered, stochastic = (
        drawn(GroupQuant(2, 64, rounding), x, SLOT) - x
        for rounding in ("dithered", "stochastic")
    )
    # 2,000 draws of a uniform error: its sample variance is good to 2 %.
    assert torch.allclose(dithered.var(0), torch.tensor(step / 12), rtol=0.1)
    place = x % step
    assert torch.allclose(stochastic.var(0), place * (step - place), atol=0.03)
    # Independent from one tensor to the next, whose seeds are neighbours.
    correlation = torch.corrcoef(dithered[:100])
    assert float((correlation - torch.eye(100)).abs().max()) < 0.6


def test_four_bits_take_four_and_a_half():
    packed = GroupQuant(4).pack(values(64 * 100, 1), SLOT)
    assert packed.nbytes * 8 == 64 * 100 * 4.5


def test_a_range_beyond_the_type_is_not_packed():
    assert GroupQuant(4).pack(torch.tensor([-3e38, 3e38]), SLOT) is None


@pytest.mark.parametrize(
    "wrong", [{"bits": 0}, {"bits": 9}, {"group": 12}, {"rounding": "up"}]
)
def test_parameters_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GroupQuant(**wrong)
