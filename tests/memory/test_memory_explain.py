"""Looking ahead leaves no trace; the largest batch is found; elided models are saved."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_nets import Transformer, gradients, images, resnet, tokens, vgg
from torch import nn

import elision
from elision.layers.modules import base
from elision.memory import explain, largest_batch, measure_peak, saver


def test_explaining_leaves_no_trace():
    torch.manual_seed(0)
    model, (x, _) = vgg(), images()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = torch.get_rng_state()
    text = explain(model, x, "bits(4)")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    for word in ("Convolution.input", "group 4-bit", "window offset", "norm input"):
        assert word in text


def test_explain_takes_arguments_by_position_and_by_name():
    model, (x, _) = Transformer(), tokens()
    assert explain(model, (x,), seed=1) == explain(model, {"tokens": x}, seed=1)


@given(st.integers(1, 5000), st.integers(0, 40000), st.integers(1, 3000))
def test_the_largest_batch_is_the_largest(slope, offset, at_most):
    limit = 100_000
    found = largest_batch(lambda n: offset + slope * n, limit, at_most=at_most)
    assert found == min(max((limit - offset) // slope, 0), at_most)


def test_more_examples_fit_when_less_is_kept():
    torch.manual_seed(0)
    model = vgg(width=8)

    def largest(policy):
        def peak(batch):
            def step():
                with saver(model, policy):
                    loss = model(torch.randn(batch, 3, 16, 16)).sum()
                loss.backward()

            return measure_peak(step).peak_bytes

        peak(1)
        return largest_batch(peak, 300_000, at_most=32)

    assert largest("bits(4)") > largest("none") > 0


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("make", [resnet, vgg])
def test_elided_models_are_saved_bit_identically(monkeypatch, declared, make):
    if not declared:
        monkeypatch.delattr(base._Products, "saved_roles")
    torch.manual_seed(0)
    model, batch = make(), images()
    elision.elide(model, elision.methods.Swat(sparsity=0.5))
    plain = gradients(model, batch)
    saved = saver(model, "exact")
    mine = gradients(model, batch, saved)
    assert all(torch.equal(plain[n], mine[n]) for n in plain)
    assert saved.ledger.ratio > 1
    lossy = saver(model, "int8")
    gradients(model, batch, lossy)
    packed = {r.slot.function for r in lossy.ledger.rows if "group 8-bit" in r.codec}
    assert ("_ProductsBackward" in packed) is declared
    assert isinstance(elision.restore(model), nn.Module)
