"""Every codec keeps what it declares, on any shape, and refuses what it cannot keep."""

import errno
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.memory import Guarantee, Rule
from elision.memory.codecs import (
    AttentionQuant,
    Division,
    ErrorBounded,
    FixedPoint,
    Float8,
    GroupQuant,
    Jpeg,
    NarrowInteger,
    Normalised,
    Offload,
    ProjectedQuant,
    RadProject,
    RadSample,
    SparseGroupQuant,
    TwoValued,
    ZeroValue,
    search_table,
)
from elision.memory.codecs.away import InFile
from elision.memory.codecs.bits import pack_bits, pack_codes, unpack_bits, unpack_codes
from elision.memory.codecs.compaction import compact, count_nonzero, spread
from elision.memory.saved.layout import dense_part, is_dense, lay_down
from elision.memory.saved.roles import Role, Slot

VALUE_CODECS = [
    GroupQuant(4),
    GroupQuant(8, rounding="nearest"),
    ErrorBounded(0.05),
    ErrorBounded(0.05, "dithered"),
    FixedPoint(8),
    FixedPoint(4, scale=1.125),
    Float8(),
    SparseGroupQuant(4),
    SparseGroupQuant(8, rounding="nearest"),
    ZeroValue(),
    Offload(),
    Jpeg(),
    Jpeg(coding="deflate"),
    Division(),
]


def slot(nonnegative=False, seed=0, role=Role.LINEAR_INPUT):
    return Slot(
        "ConvolutionBackward0", "input", role, nonnegative=nonnegative, seed=seed
    )


shapes = st.one_of(
    st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 19)] * 2),
    st.tuples(st.integers(1, 20), st.integers(1, 40)),
    st.tuples(st.integers(1, 400)),
)


@pytest.mark.parametrize("codec", VALUE_CODECS, ids=repr)
@settings(max_examples=25, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 999),
    relu=st.booleans(),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
    permuted=st.booleans(),
)
def test_a_codec_keeps_what_it_declares(codec, shape, seed, relu, scale, permuted):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    if relu:
        x = x.relu()
    if permuted and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    packed = codec.pack(x, slot(nonnegative=relu))
    assert torch.equal(x, before)
    if packed is None:
        return
    y = codec.unpack(packed)
    assert (y.shape, y.dtype, y.stride()) == (x.shape, x.dtype, x.stride())
    assert torch.equal(y, codec.unpack(packed))
    if codec.guarantee is Guarantee.EXACT:
        assert torch.equal(x, y)
    bound = codec.bound(packed)
    if bound is not None:
        assert float((x - y).abs().max()) <= bound
    if isinstance(codec, ErrorBounded):
        assert bound <= codec.limit
    if relu and codec.keeps_sign(packed):
        assert not y[x == 0].any()
        assert torch.equal(codec.unpack_sign(packed) > 0, x > 0)


@pytest.mark.parametrize("codec", VALUE_CODECS[:9], ids=repr)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_lossy_codecs_refuse_what_is_not_finite(codec, bad):
    x = torch.randn(2, 3, 16, 16)
    x[1, 2, 3, 4] = bad
    assert codec.pack(x, slot()) is None


@pytest.mark.parametrize("codec", [ZeroValue(), Offload()], ids=repr)
def test_exact_codecs_keep_what_is_not_finite(codec):
    x = torch.randn(2, 3, 16, 16).relu()
    x[0, 0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    y = codec.unpack(codec.pack(x, slot()))
    assert torch.equal(x.nan_to_num(7), y.nan_to_num(7))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.integers(1, 8), st.integers(0, 999))
def test_packing_codes_is_lossless_and_as_small_as_said(count, bits, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, count, dtype=np.uint8)
    tensor = torch.from_numpy(codes)
    packed = pack_codes(tensor, bits)
    assert packed.numel() == -(-count // 8) * bits
    assert torch.equal(unpack_codes(packed, bits, count), tensor)
    mask = tensor % 2 == 1
    assert torch.equal(unpack_bits(pack_bits(mask), count), mask)
    assert torch.equal(pack_bits(mask), pack_codes(mask.to(torch.uint8), 1))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=st.integers(0, 99), step=st.integers(1, 3))
def test_any_view_is_laid_down_as_it_was(shape, seed, step):
    base = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    views = [base, base.T if base.dim() == 2 else base, base[..., ::step]]
    views += [base.flatten()[::step], base[:1].expand(3, *base.shape[1:])]
    for view in views:
        part = dense_part(view)
        assert is_dense(part.shape, part.stride())
        assert part.numel() <= view.numel()
        restored = lay_down(part.clone(), view.shape, view.stride())
        assert torch.equal(restored, view)


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_two_valued_keeps_dropout_masks_only(value):
    x = (torch.arange(1000) % 3 == 0) * value
    codec, where = TwoValued(), slot(role=Role.FACTOR)
    packed = codec.pack(x, where)
    assert packed.nbytes == 125
    assert torch.equal(codec.unpack(packed), x)
    for position in (3, 900):
        other = x.clone()
        other[position] = 0.5
        assert codec.pack(other, where) is None
    assert codec.pack(-x, where) is None


def test_integers_are_narrowed():
    codec, where = NarrowInteger(), slot(role=Role.INTEGER)
    for high, width in ((200, 1), (30000, 2), (2**31 - 1, 4)):
        x = torch.tensor([0, high, 5])
        packed = codec.pack(x, where)
        assert packed.nbytes == 3 * width
        assert torch.equal(codec.unpack(packed), x)
    assert codec.pack(torch.tensor([2**40]), where) is None


@pytest.mark.parametrize(
    "codec", [RadSample(0.3), RadProject(0.3), ProjectedQuant(0.4, 2)], ids=repr
)
@pytest.mark.parametrize("shape", [(2, 2, 4, 3), (3, 10)])
def test_random_estimators_are_unbiased(codec, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    draws = torch.stack(
        [codec.unpack(codec.pack(x, slot(seed=seed))) for seed in range(2000)]
    )
    directions = torch.randn(x.numel(), 4, generator=generator)
    projected = (draws - x).flatten(1) @ directions
    assert (projected.mean(0).abs() <= 4 * projected.std(0) / 2000**0.5).all()


def test_sign_projections_average_to_the_identity():
    codec = RadProject(0.5)
    signs = [codec._signs(6, seed, torch.device("cpu")) for seed in range(2000)]
    products = torch.stack([m @ m.T for m in signs])
    error = products.std(0) / 2000**0.5
    assert ((products.mean(0) - torch.eye(6)).abs() <= 4 * error + 1e-6).all()


def test_a_random_estimator_may_not_touch_what_is_not_linear():
    with pytest.raises(ValueError, match=r"RAD sample may not touch norm input"):
        Rule((RadSample(0.1),), roles=frozenset({Role.NORM_INPUT}))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
def test_taking_zeros_out_loses_nothing_but_the_sign_of_zero(count, seed, share):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator)
    x[torch.rand(count, generator=generator) >= share] = 0.0
    if count:
        x[-1] = torch.nan
    for dtype in (torch.float32, torch.float64):  # the kernel, and plain torch
        values = x.to(dtype)
        bits, kept = compact(values, count_nonzero(values))
        assert torch.equal(unpack_bits(bits, count), x != 0)
        assert kept.numel() == int((x != 0).sum())
        assert torch.equal(
            spread(bits, kept, count).nan_to_num(7), x.nan_to_num(7).to(dtype)
        )


def test_zeros_of_a_relu_pay_for_finer_codes():
    x = torch.randn(64 * 1000, generator=torch.Generator().manual_seed(0))
    where = slot(nonnegative=True)
    # Where two values in three are not zero, a bit more takes up to an eighth more bytes.
    cases = ((-0.5, 0.3, 1.0), (0.0, 0.3, 1.0), (0.4, 0.6, 1.125), (0.7, 1.1, 1.0))
    for shift, share, bytes_over in cases:
        y = (x + shift).relu()
        sparse, plain = SparseGroupQuant(4), GroupQuant(4)
        packed, whole = sparse.pack(y, where), plain.pack(y, where)
        assert packed.nbytes <= bytes_over * whole.nbytes
        error = float((sparse.unpack(packed) - y).norm())
        assert error < share * float((plain.unpack(whole) - y).norm())
    assert SparseGroupQuant(4).pack((x + 3).relu(), where) is None  # hardly a zero
    # Other sparse tensors gain as much, but are no mask.
    z = x * (x.abs() > 1)
    packed = SparseGroupQuant(4).pack(z, slot())
    assert not SparseGroupQuant(4).keeps_sign(packed)
    error = float((SparseGroupQuant(4).unpack(packed) - z).norm())
    assert error < 0.1 * float(
        (GroupQuant(4).unpack(GroupQuant(4).pack(z, slot())) - z).norm()
    )
    # Eight bits are not exceeded: what zeros save is saved.
    assert (
        SparseGroupQuant(8).pack(x.relu(), where).nbytes
        < 0.7 * GroupQuant(8).pack(x.relu(), where).nbytes
    )


def test_jpeg_matches_a_direct_transform():
    from scipy.fft import dctn, idctn

    x = torch.randn(1, 2, 8, 16, generator=torch.Generator().manual_seed(1))
    codec = Jpeg(table=tuple(float(1 + i % 7) for i in range(64)))
    restored = codec.unpack(codec.pack(x, slot()))
    table = np.array(codec.table).reshape(8, 8)
    for channel in range(2):
        step = float(x[0, channel].abs().max()) / 127
        for column in (0, 8):
            q = np.round(x[0, channel, :, column : column + 8].numpy() / step)
            z = np.clip(np.round(dctn(q, norm="ortho") / table), -127, 127)
            expected = idctn(z * table, norm="ortho") * step
            got = restored[0, channel, :, column : column + 8].numpy()
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_division_beats_plain_groups_on_smooth_planes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 32, 32, generator=generator)
    x = F.interpolate(F.avg_pool2d(x, 16), 32) * 16 + 0.1 * x
    errors = [
        float((codec.unpack(codec.pack(x, slot())) - x).norm())
        for codec in (Division(2), GroupQuant(2))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_searched_table_beats_the_flat_one_on_smooth_planes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 32, 32, generator=generator)
    x = F.avg_pool2d(x, 5, 1, 2) + 0.02 * x
    # Among flat tables, take the first that is no larger.
    searched = Jpeg(search_table([x]), coding="deflate")
    packed = searched.pack(x, slot())
    error = float((searched.unpack(packed) - x).norm())
    for power in range(8):
        flat = Jpeg(float(2**power), coding="deflate")
        other = flat.pack(x, slot())
        if other.nbytes <= packed.nbytes:
            assert error <= float((flat.unpack(other) - x).norm()) * 1.02
            break
    else:
        pytest.fail("no flat table was as small")


@pytest.mark.parametrize("ahead", [True, False])
def test_the_tensor_sent_before_is_brought_back_ahead(ahead, tmp_path, monkeypatch):
    began = []
    start = InFile.start
    monkeypatch.setattr(InFile, "start", lambda a: began.append(a._count) or start(a))
    codec = Offload(str(tmp_path), ahead=ahead)
    tensors = [torch.randn(size) for size in (3, 50, 400, 7)]
    packed = [codec.pack(x, slot()) for x in tensors]
    for _ in range(2):  # a retained graph asks twice
        for x, p in reversed([*zip(tensors, packed, strict=True)]):
            assert torch.equal(codec.unpack(p), x)
    # After the first of each round, whoever is asked for is on its way already.
    assert began == [7, 400, 50, 3] * 2
    began.clear()
    del packed[2], p  # gone, and with it the way to those before it
    assert torch.equal(codec.unpack(packed[2]), tensors[3])
    assert began == [7]
    assert torch.equal(codec.unpack(packed[1]), tensors[1])
    assert began == [7, 50, 3] if ahead else [7, 50]


def test_a_full_disk_is_said_so(monkeypatch, tmp_path):
    def full(descriptor, data, at):
        raise OSError(errno.ENOSPC, "No space left on device")

    codec = Offload(str(tmp_path))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RuntimeError, match=r"offloading 4096 bytes.*the disk is full"):
        codec.pack(torch.zeros(1024), slot())
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="No such file or directory"):
        Offload(str(tmp_path / "missing")).pack(torch.zeros(4), slot())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedPoint(1),
        lambda: FixedPoint(8, 0.5),
        lambda: Jpeg(0),
        lambda: Jpeg((1.0, 2.0)),
        lambda: Jpeg(coding="zip"),
        lambda: RadSample(0),
        lambda: ProjectedQuant(keep=2),
        lambda: Division(0),
        lambda: ErrorBounded(0),
        lambda: SparseGroupQuant(9),
        lambda: SparseGroupQuant(4, most=3),
        lambda: GroupQuant(4.0),
        lambda: GroupQuant(group=12),
        lambda: Normalised(9),
        lambda: Normalised(group=4),
        lambda: AttentionQuant(0),
        lambda: AttentionQuant(4, most=9),
        lambda: AttentionQuant(4, most=3),
    ],
)
def test_parameters_are_checked(make):
    with pytest.raises(ValueError, match="must be"):
        make()
