"""Codec noise beside batch noise: right on a case with known variances."""

import pytest
import torch
from torch import nn

from elision.memory import Policy, Rule
from elision.memory.codecs import GroupQuant
from elision.memory.measures.noise import NoiseShare, codec_noise


class Doubling(nn.Module):
    """A linear layer behind a fixed scale, so that its input is not the batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 1, bias=False)

    def forward(self, x):
        return self.linear(x * 2)


def test_both_variances_are_those_of_a_linear_layer():
    torch.manual_seed(0)
    model = Doubling()
    # The gradient of the mean output is the mean input: variance 4·32/16 per batch.
    batches = [torch.randn(16, 32) for _ in range(400)]
    policy = Policy([Rule((GroupQuant(3, 8),), min_bytes=0)])
    (share,) = codec_noise(model, lambda x: model(x).mean(), batches, policy)
    assert share.parameter == "linear.weight"
    assert share.batch_variance == pytest.approx(8, rel=0.1)
    # Groups of eight normal values of deviation 2 have a mean squared range of 35.1.
    step_variance = 35.1 / 49 / 12
    assert share.codec_variance == pytest.approx(step_variance * 32 / 16, rel=0.1)
    assert share.share == share.codec_variance / share.batch_variance
    assert share.hidden == (share.share <= 0.1)


def test_an_exact_policy_adds_no_noise_and_nothing_is_left_behind():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    )
    before = {n: t.clone() for n, t in model.state_dict().items()}
    batches = [torch.randn(4, 3, 8, 8) for _ in range(3)]
    state = torch.get_rng_state()
    shares = codec_noise(model, lambda x: model(x).square().mean(), batches, "exact")
    assert [s.codec_variance for s in shares] == [0.0] * 4
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_noise_needs_two_batches():
    with pytest.raises(ValueError, match="at least two batches, got 1"):
        codec_noise(nn.Linear(1, 1), lambda x: x.sum(), [torch.ones(1)], "exact")


def test_no_noise_at_all_is_hidden():
    assert NoiseShare("w", 0.0, 0.0).hidden
    assert not NoiseShare("w", 0.0, 1.0).hidden
