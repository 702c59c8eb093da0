"""Damaged packed bytes: what is packed is what is unpacked, and nothing is read beyond it."""

import pytest
import torch
from torch.nn.functional import max_pool2d

from elision.memory import DamagedError, Role, Slot
from elision.memory.codecs import (
    Division,
    ErrorBounded,
    FixedPoint,
    Float8,
    GroupQuant,
    Jpeg,
    Normalised,
    PoolIndices,
    ProjectedQuant,
    RadSample,
    SparseGroupQuant,
    ZeroValue,
)
from elision.memory.codecs.compaction import compact, spread
from elision.memory.saved.codec import Codec, Packed

SLOT = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT, nonnegative=True)
CODECS: list[Codec] = [
    GroupQuant(4),
    ErrorBounded(0.05),
    FixedPoint(8),
    Float8(),
    SparseGroupQuant(4),
    ZeroValue(),
    Jpeg(),
    Jpeg(coding="deflate"),
    Division(),
    ProjectedQuant(0.5, bits=4),
    RadSample(0.5),
]


def _inverted(part: torch.Tensor) -> torch.Tensor:
    """Another tensor with every bit of its bytes inverted."""
    whole = part.clone()
    whole.view(-1).view(torch.uint8).bitwise_not_()
    return whole


def _changed_or_refused(codec: Codec, packed: Packed, k: int) -> bool:
    clean = codec.unpack(packed)
    parts = list(packed.payload)
    parts[k] = _inverted(parts[k])
    try:
        return not torch.equal(clean, codec.unpack(packed.holding(parts)))
    except (DamagedError, IndexError, RuntimeError):
        return True


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_every_packed_part_is_read_when_it_is_unpacked(codec: Codec) -> None:
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).relu()
    packed = codec.pack(x, SLOT)
    assert packed is not None
    for k in range(len(packed.payload)):
        assert _changed_or_refused(codec, packed, k), k


def test_every_packed_part_of_probabilities_is_read() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(64, 20, generator=generator).requires_grad_().softmax(1)
    slot = Slot("SoftmaxBackward0", "result", Role.PROBABILITY, node=p.grad_fn)
    packed = Normalised(4).pack(p.detach(), slot)
    assert packed is not None
    for k in range(len(packed.payload)):
        assert _changed_or_refused(Normalised(4), packed, k), k


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
@pytest.mark.parametrize("count", [5, 8, 61, 640])
def test_a_mask_with_a_flipped_bit_is_refused(dtype: torch.dtype, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    x = torch.randint(0, 2, (count,), generator=generator).to(dtype)
    bits, kept = compact(x, int(x.count_nonzero()))
    assert torch.equal(spread(bits, kept, count), x)
    for at in range(count):
        damaged = bits.clone()
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(DamagedError, match="mask names"):
            spread(damaged, kept, count)


def test_a_damaged_deflated_stream_is_refused() -> None:
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    codec = Jpeg(coding="deflate")
    packed = codec.pack(x, SLOT)
    assert packed is not None
    step, stream, *mask = packed.payload
    damaged = stream.clone()
    damaged[len(stream) // 2] ^= 16
    with pytest.raises(DamagedError, match="deflated bytes changed"):
        codec.unpack(packed.holding([step, damaged, *mask]))


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0)])
def test_a_pooling_index_outside_of_its_plane_is_refused(
    kernel: int, padding: int
) -> None:
    x = torch.randn(1, 2, 9, 9, requires_grad=True)
    pooled, indices = max_pool2d(x, kernel, 2, padding, return_indices=True)
    node = pooled.grad_fn
    assert node is not None
    slot = Slot(node.name(), "result1", Role.POOL_INDICES, node=node)
    codec = PoolIndices()
    packed = codec.pack(indices, slot)
    assert packed is not None
    assert codec.unpack(packed).equal(indices)
    with pytest.raises(DamagedError, match="outside of its plane of 9 x 9"):
        codec.unpack(packed.holding([torch.full_like(packed.payload[0], 255)]))
