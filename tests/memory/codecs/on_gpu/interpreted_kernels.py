"""Triton's kernels, interpreted, are their torch versions.

Run by ``test_triton_kernels``, with the interpreter switched on before Triton is imported.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.memory.codecs import (
    GroupQuant,
    Jpeg,
    SparseGroupQuant,
    TwoValued,
    group_torch,
)
from elision.memory.codecs import bits as plain_bits
from elision.memory.codecs import compaction as plain_compaction
from elision.memory.codecs import group as group_codec
from elision.memory.codecs import jpeg as plain_jpeg
from elision.memory.codecs.cosine import cosine_transform
from elision.memory.codecs.fixed_point import channel_maxima
from elision.memory.codecs.on_gpu import compaction, group, jpeg, masks, trial
from elision.memory.saved.roles import Role, Slot

few = settings(max_examples=6)


def normal(size: int, seed: int, kind: str) -> torch.Tensor:
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if kind == "relu":
        return x.relu()
    if kind == "constant":
        return x[:1].repeat(size)
    return x * 10 ** torch.linspace(-30, 30, size) if kind == "wide" else x


@few
@given(
    groups=st.integers(1, 20),
    size=st.sampled_from([8, 24, 64]),
    bits=st.integers(1, 8),
    kind=st.sampled_from(["normal", "relu", "constant", "wide"]),
    random=st.booleans(),
    support=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_groups_are_those_of_torch_bit_for_bit(
    groups, size, bits, kind, random, support, seed
):
    x, support = normal(groups * size, seed % 1000, kind), support and bits > 1
    found = []
    for module in (group, group_torch):
        codes = torch.zeros(len(x) // 8 * bits, dtype=torch.uint8)
        low, step = torch.zeros(2, groups)
        out, mask = torch.zeros(2, len(x))
        module.quantise(x, size, bits, seed, random, support, codes, low, step)
        module.dequantise(codes, size, bits, seed, random, support, low, step, out)
        module.mask(codes, size, bits, mask)
        found.append((codes, low, step, out, mask))
    for ours, oracle in zip(*found, strict=True):
        assert torch.equal(ours, oracle)


@few
@given(count=st.integers(1, 10_000), seed=st.integers(0, 1000))
def test_masks_are_those_of_numpy(count, seed):
    mask = normal(count, seed, "normal") > 0
    packed = masks.pack(mask)
    assert torch.equal(packed, plain_bits.pack_bits(mask))
    assert torch.equal(masks.unpack(packed, count), mask)


@few
@given(
    count=st.integers(1, 5000),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.int8, torch.float32, torch.bfloat16]),
)
def test_compaction_is_that_of_torch(count, seed, dtype):
    values = normal(count, seed, "relu").mul(3).to(dtype)
    bits, kept = compaction.compact(values)
    expected = plain_compaction.compact(values, plain_compaction.count_nonzero(values))
    assert torch.equal(bits, expected[0])
    assert torch.equal(kept, expected[1])
    ends = compaction.ends(bits, count)
    assert int(ends[-1]) == len(kept)
    assert torch.equal(compaction.spread(bits, ends, kept, count), values)


@few
@given(
    shape=st.tuples(
        st.integers(1, 2), st.integers(1, 3), st.integers(8, 20), st.integers(8, 20)
    ),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
)
def test_transforms_round_what_torch_computes(shape, seed, dtype, channels_last):
    images = normal(torch.Size(shape).numel(), seed, "normal").view(shape).to(dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    step, dct = channel_maxima(images) / 127, cosine_transform()
    table = torch.arange(64, dtype=torch.float32).view(8, 8) / 4 + 1
    found = jpeg.transformed(images, step.view(-1), dct, table)
    exact = (plain_jpeg._transform(images, step) / table).view(found.shape)
    assert float((found - exact.clamp(-127, 127)).abs().max()) <= 0.5 + 1e-4
    restored = torch.empty_like(images)
    jpeg.restored(found, step.view(-1), dct, table, restored)
    expected = torch.empty_like(images)
    Jpeg()._restore(found, step, dct, table, expected)
    assert torch.allclose(restored, expected, rtol=1e-2, atol=float(step.max()) * 1e-3)


def test_the_trial_passes_whatever_type_is_the_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert trial.differing(torch.device("cpu")) is None
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        (masks, "unpack", "masks"),
        (compaction, "spread", "compaction"),
        (jpeg, "restored", "the cosine transforms"),
        (group, "dequantise", "group quantisation"),
    ],
)
def test_the_trial_notices_a_wrong_kernel(module, name, told, monkeypatch):
    for other in set(trial._TRIALS) - {told}:
        monkeypatch.setitem(trial._TRIALS, other, lambda values, device: True)
    monkeypatch.setattr(trial, "_COUNT", 4700)
    right = getattr(module, name)

    def wrong(*args):
        result = right(*args)
        (args[-1] if result is None else result).view(-1)[7:8].logical_not_()
        return result

    monkeypatch.setattr(module, name, wrong)
    assert trial.differing(torch.device("cpu")) == f"wrong results of {told}"


@pytest.fixture
def on_gpu(monkeypatch):
    """Codecs take tensors of the CPU for those of a GPU whose kernels work."""
    for module in (plain_bits, plain_compaction, plain_jpeg):
        monkeypatch.setattr(module, "usable", lambda tensor: True)
    monkeypatch.setattr(group_codec, "_backend", lambda *args: group)
    monkeypatch.setattr(group_codec, "_array", lambda tensor: tensor)
    monkeypatch.setattr(group_codec, "_on_gpu", lambda *args: True)


@pytest.mark.parametrize(
    "codec",
    [
        GroupQuant(3),
        SparseGroupQuant(4),
        TwoValued(),
        Jpeg(4),
        Jpeg(4, coding="deflate"),
    ],
    ids=str,
)
# Not bfloat16: the interpreter cuts results off, where a GPU rounds them.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_codecs_give_by_the_kernels_what_they_give_without(codec, dtype, request):
    x = normal(2 * 3 * 11 * 19, 1, "relu").view(2, 3, 11, 19).to(dtype)
    role = Role.LINEAR_INPUT
    if isinstance(codec, TwoValued):
        x, role = (x > 0.5).to(dtype), Role.FACTOR
    slot = Slot("ConvolutionBackward0", "input", role, nonnegative=True, seed=5)
    expected = codec.unpack(codec.pack(x, slot))
    request.getfixturevalue("on_gpu")
    packed = codec.pack(x, slot)
    restored = codec.unpack(packed)
    if isinstance(codec, Jpeg):  # a coefficient may be rounded the other way
        assert float((restored - expected).abs().mean()) < 1e-3
        assert torch.equal(restored > 0, x > 0)
    else:
        assert torch.equal(restored, expected)
