"""The grid that batch norm gives: the rule itself, ReLU's zero, what derives from it."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_nets import gradients, images, resnet, vgg
from torch import nn

from elision.memory import saver
from elision.memory.codecs import BatchNormAligned
from elision.memory.saved.roles import Role, Slot


def packed_by(codec, x, norm):
    """What the codec makes of a batch norm's input, and its result."""
    out = norm(x)
    slot = Slot(out.grad_fn.name(), "input", Role.NORM_INPUT, node=out.grad_fn)
    return codec.pack(x, slot), out.detach()


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(2, 8),
    seed=st.integers(0, 999),
    shape=st.sampled_from([(8, 4, 5, 7), (64, 4)]),
    spread=st.sampled_from([0.1, 2.0, 10.0]),
)
def test_values_within_three_deviations_are_off_by_half_a_bin(
    bits, seed, shape, spread
):
    torch.manual_seed(seed)
    x = torch.randn(shape) * 5 + 3
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1])
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias, std=spread)
    codec = BatchNormAligned(bits)
    packed, out = packed_by(codec, x, norm)
    restored = codec.unpack(packed)
    axes = [a for a in range(x.dim()) if a != 1]
    mean, deviation = x.mean(axes, keepdim=True), x.std(axes, False, keepdim=True)
    normal = (x - mean) / deviation
    h = 6 / 2**bits
    inside = normal.abs() < 3 - h  # alignment moves the grid by less than a bin
    off = ((restored - x) / deviation).abs()
    assert float(off[inside].max()) <= h / 2 + 1e-3
    # Where the zero of the result lies on the grid, no code stands for both signs.
    view = [1, -1] + [1] * (x.dim() - 2)
    gamma, beta = norm.weight.view(view), norm.bias.view(view)
    aligned = ((beta / gamma).abs() < 3 - h).expand_as(x) & (out.abs() > 1e-4)
    again = (restored - mean) / deviation * gamma + beta
    assert torch.equal((again > 0)[aligned], (out > 0)[aligned])


def test_the_codes_are_those_of_the_published_rule():
    norm = nn.BatchNorm1d(1).requires_grad_()
    nn.init.constant_(norm.bias, 0.7)
    x = torch.randn(4096, 1)
    packed, _ = packed_by(BatchNormAligned(4), x, norm)
    h, bins = 6 / 16, 16
    a = (x[:, 0] - x.mean()) / (x.var(correction=0) + norm.eps).sqrt() + 0.7
    shift = max(1, bins // 2 - int(0.7 * bins / 6))
    q = (((a - 1e-6) / h).floor() + shift).clamp(0, bins - 1)
    low, high = packed.payload[0] & 15, packed.payload[0] >> 4
    codes = torch.stack([low, high], 1).view(-1)
    assert (codes == q).float().mean() > 0.999  # rounding may move a value at an edge
    assert packed.payload[0].nbytes == 2048


def test_the_next_layers_input_is_derived():
    torch.manual_seed(0)
    for model in (vgg(width=16), resnet(width=16)):
        batch = images(batch=16)
        gradients(model, batch)
        exact = gradients(model, batch)
        ratios, errors = {}, {}
        for policy in ("blpa(4)", "bits(4)", "blpa(8)"):
            saved = saver(model, policy, seed=0)
            mine = gradients(model, batch, saved)
            names = [n for n in exact if exact[n].dim() == 4]
            off = [(mine[n] - exact[n]).norm() / exact[n].norm() for n in names]
            ratios[policy], errors[policy] = saved.ledger.ratio, max(off)
            codecs = {row.codec for row in saved.ledger.rows}
            assert ("recompute from packed" in codecs) == ("blpa" in policy)
        assert ratios["blpa(4)"] > 1.1 * ratios["bits(4)"]
        assert errors["blpa(8)"] < errors["blpa(4)"] / 2
        assert errors["blpa(4)"] < 0.35


def test_only_batch_norms_that_train_are_packed():
    codec = BatchNormAligned()
    x = torch.randn(4, 8, 16)
    slot = Slot("NativeLayerNormBackward0", "input", Role.NORM_INPUT)
    slot.node = SimpleNamespace()
    assert codec.pack(x, slot) is None
    norm = nn.BatchNorm1d(8).eval()
    assert packed_by(codec, x, norm)[0] is None
    x[0, 0, 0] = torch.nan
    assert packed_by(codec, x, norm.train())[0] is None
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False))
    with saver(model, "blpa") as saved:
        loss = F.relu(model(images()[0])).sum()
    loss.backward()
    assert any(r.codec == "batch-norm aligned" for r in saved.ledger.rows)


def test_bits_are_checked():
    with pytest.raises(ValueError, match=r"must be an integer in \[2, 8\]"):
        BatchNormAligned(1)
