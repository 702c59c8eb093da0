"""Error-bounded libraries keep their bound; without them the message says what to do."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_nets import gradients, images, vgg

from elision.memory import DamagedError, saver
from elision.memory.codecs import Sz3, Zfp
from elision.memory.saved.roles import Role, Slot

CODECS = [Sz3, Zfp]


@pytest.mark.parametrize("kind", CODECS)
@settings(max_examples=30, deadline=None)
@given(
    shape=st.one_of(
        st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 19)] * 2),
        st.tuples(st.integers(1, 20), st.integers(1, 40)),
    ),
    seed=st.integers(0, 999),
    relu=st.booleans(),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
    tolerance=st.sampled_from([0.01, 0.2, 1.0]),
)
def test_no_element_is_off_by_more_than_the_tolerance(
    kind, shape, seed, relu, scale, tolerance
):
    pytest.importorskip(kind.library)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    x = x.relu() if relu else x
    codec = kind(tolerance)
    slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT, nonnegative=relu)
    packed = codec.pack(x, slot)
    if packed is None:
        return
    assert packed.nbytes < x.nbytes
    y = codec.unpack(packed)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    off = float((x - y).abs().max())
    assert off <= codec.bound(packed)
    assert off <= 1.001 * tolerance * float(x.std(correction=0))
    if relu:
        assert torch.equal(codec.unpack_sign(packed) > 0, x > 0)
        assert torch.equal(y > 0, x > 0)


@pytest.mark.parametrize("preset", ["sz3(0.05)", "zfp(0.05)"])
def test_a_network_trains_on_it(preset):
    pytest.importorskip("pysz" if preset.startswith("sz3") else "zfpy")
    torch.manual_seed(0)
    model, batch = vgg(), images(batch=8)
    exact = gradients(model, batch)
    saved = saver(model, preset)
    mine = gradients(model, batch, saved)
    assert saved.ledger.covered_ratio(preset[:3]) > 2
    for name, gradient in exact.items():
        if gradient.dim() > 1:
            assert (mine[name] - gradient).norm() <= 0.05 * gradient.norm(), name


@pytest.mark.parametrize("kind", CODECS)
def test_without_the_library_the_message_says_what_to_install(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind.library, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elision\[(sz3|zfp)\]"):
        kind()


@pytest.mark.parametrize("kind", CODECS)
def test_the_tolerance_is_checked(kind):
    with pytest.raises(ValueError, match="must be a number > 0"):
        kind(0)


@pytest.mark.parametrize("kind", CODECS)
def test_a_flipped_bit_never_reaches_the_decoder(kind):
    pytest.importorskip(kind.library)
    slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
    packed = kind().pack(torch.linspace(-9, 9, 4096).view(1, 4, 32, 32).sin(), slot)
    packed.payload[0][len(packed.payload[0]) // 2] ^= 1
    with pytest.raises(DamagedError, match="changed since the forward pass"):
        kind().unpack(packed)
