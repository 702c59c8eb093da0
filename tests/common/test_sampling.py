"""A sample must see every image, channel, row and column of a tensor."""

import pytest
import torch

from elision.common.sampling import spread_places
from elision.operands import TopK

SHAPES = [
    (32, 64, 32, 32),
    (2, 64, 32, 32, 16),
    (16, 512, 4, 4),
    (512, 512, 3, 3),
    (31, 3, 17, 13),
    (1024, 3072),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_slice_gets_its_share_of_the_sample(shape: tuple[int, ...]) -> None:
    size = torch.Size(shape).numel()
    places = spread_places(size, 16384)
    assert int(places.min()) >= 0
    assert int(places.max()) < size
    for axis, length in enumerate(shape):
        after = torch.Size(shape[axis + 1 :]).numel()
        counts = torch.bincount(places // after % length, minlength=length)
        share = 16384 / length
        # Independent places would stray by their square root.
        assert (counts - share).abs().max() <= 3 * share**0.5 + 1


@pytest.mark.parametrize("shape", [(32, 64, 32, 32), (512, 256, 3, 3)], ids=str)
def test_a_sampled_threshold_weighs_channels_of_every_scale(
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    scale = torch.logspace(-2, 2, shape[1]).view(1, -1, 1, 1)
    x = torch.randn(shape) * scale * torch.logspace(-1, 1, shape[0]).view(-1, 1, 1, 1)
    kept = TopK(0.9, "sampled")
    result = kept.apply(x, kept.initial_state(), training=True)
    # 4 standard deviations of the quantile of 16,384 independent values.
    assert abs(torch.count_nonzero(result).item() / x.numel() - 0.1) < 0.01
