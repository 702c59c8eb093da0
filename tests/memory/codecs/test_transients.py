"""What a codec needs beside a tensor and its packed form, by the allocator's account."""

from collections.abc import Callable

import pytest
import torch
from memory_nets import vgg
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from elision.memory import Codec, Packed, Role, Slot, measure_peak, saver
from elision.memory.codecs import (
    BatchNormAligned,
    Division,
    ErrorBounded,
    FixedPoint,
    Float8,
    GroupQuant,
    Jpeg,
    Normalised,
    PoolIndices,
    RadProject,
    RadSample,
    SparseGroupQuant,
    ThresholdMask,
    TwoValued,
    ZeroValue,
)

CODECS = [
    *(GroupQuant(4), GroupQuant(8), SparseGroupQuant(4), ErrorBounded(0.1)),
    *(FixedPoint(8), Float8(), Jpeg(8), Division(2), RadSample(), RadProject()),
    *(BatchNormAligned(4), Normalised(4), ZeroValue()),
]


def example(codec: Codec, x: Tensor) -> tuple[Tensor, Slot]:
    """A tensor that the codec packs, and its slot."""
    if isinstance(codec, BatchNormAligned):
        node = nn.BatchNorm2d(x.shape[1])(x.requires_grad_()).grad_fn
        assert node is not None
        return x.detach(), Slot(node.name(), "input", Role.NORM_INPUT, node=node)
    if isinstance(codec, Normalised):
        p = x.view(-1, 1024).requires_grad_().softmax(-1)
        node = p.grad_fn
        assert node is not None
        slot = Slot(node.name(), "result", Role.PROBABILITY, node=node)
        return p.detach(), slot
    slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
    return (x.relu() if isinstance(codec, (SparseGroupQuant, ZeroValue)) else x), slot


def transients(codec: Codec, tensor: Tensor, slot: Slot) -> tuple[float, float]:
    """Bytes beside the packed form and the restored tensor, over the tensor's."""
    found: list[Packed | None] = [codec.pack(tensor, slot)]
    packed = found.pop()
    assert packed is not None
    codec.unpack(packed)  # compiles
    packing = measure_peak(lambda: found.append(codec.pack(tensor, slot)))
    unpacking = measure_peak(lambda: codec.unpack(packed))
    beside = (
        packing.peak_bytes - packing.end_bytes,
        unpacking.peak_bytes - tensor.nbytes,
    )
    return beside[0] / tensor.nbytes, beside[1] / tensor.nbytes


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_codec_needs_at_most_one_more_copy(codec: Codec) -> None:
    tensor, slot = example(codec, torch.randn(32, 64, 32, 32))
    packing, unpacking = transients(codec, tensor, slot)
    assert packing <= 1.2
    assert unpacking <= 0.8


@pytest.mark.parametrize(
    "codec", [GroupQuant(4), ErrorBounded(0.1), FixedPoint(8), Float8()], ids=str
)
def test_half_precision_is_converted_in_pieces(codec: Codec) -> None:
    tensor, slot = example(codec, torch.randn(32, 64, 32, 32).bfloat16())
    packing, unpacking = transients(codec, tensor, slot)
    assert packing <= 1
    assert unpacking <= 0.6


def test_masks_and_indices_are_made_in_pieces() -> None:
    x = torch.randn(32, 64, 32, 32, requires_grad=True)
    pooled, indices = max_pool2d(x, 2, return_indices=True)
    node = pooled.grad_fn
    assert node is not None
    slot = Slot(node.name(), "result1", Role.POOL_INDICES, node=node)
    assert max(transients(PoolIndices(), indices, slot)) <= 1.2
    relu = Slot("ReluBackward0", "result", Role.THRESHOLD, node=x.relu().grad_fn)
    assert max(transients(ThresholdMask(), x.detach().relu(), relu)) <= 0.5
    factor = Slot("MulBackward0", "other", Role.FACTOR)
    assert max(transients(TwoValued(), (x > 0).float(), factor)) <= 1


def layer_transients(make: Callable[[], nn.Module], x: Tensor, policy: str) -> int:
    """Peak of a step beyond what is stored between its passes."""
    model = make()

    def step() -> int:
        with saver(model, policy) as saved:
            loss = model(x).sum()
        loss.backward()
        return saved.ledger.stored_bytes

    stored = step()
    return measure_peak(step).peak_bytes - stored


@pytest.mark.parametrize("norm", [True, False])
def test_a_steps_peak_is_what_is_stored_and_its_largest_layer(norm: bool) -> None:
    x = torch.randn(8, 3, 64, 64)

    def whole() -> nn.Module:
        torch.manual_seed(0)
        net = vgg(width=32, norm=norm)
        return nn.Sequential(*list(net)[:-3], nn.AdaptiveAvgPool2d(1))

    def largest() -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        return nn.Sequential(*(layers if norm else layers[::2]))

    copy = 8 * 32 * 64 * 64 * 4
    inside = torch.randn(8, 32, 64, 64, requires_grad=True)
    alone = measure_peak(lambda: largest()(inside).sum().backward()).peak_bytes
    for policy in ("exact", "bits(4)"):
        assert layer_transients(whole, x, policy) < alone + 1.3 * copy, policy
