"""The ternary kernels against dense products with the decoded weight, exactly.

Activations are integers and scales eighths, so that float32 holds every sum.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from elision.engines.native.ternary import PackedTernary, quantised
from elision.engines.native.ternary_sums import AddedTernary, planes
from elision.formats.ternary_blocks import (
    TernaryBlocks,
    rows_of,
    ternary_blocks,
    weight_of,
)
from elision.native.shared_object import unavailable
from elision.products import Conv2dGeometry

pytestmark = pytest.mark.skipif(
    unavailable() is not None, reason="no compiler for the kernels"
)

#: Batch, channels, height, width, outputs, kernel, stride, padding, dilation, groups, block.
CASES = {
    "one": (1, 1, 1, 1, 1, (1, 1), 1, 0, 1, 1, 1),
    "linear": (5, 100, 1, 1, 70, (1, 1), 1, 0, 1, 1, 64),
    "ragged": (3, 7, 4, 5, 17, (3, 3), 1, 1, 1, 1, 64),
    "strided": (2, 64, 8, 8, 33, (3, 3), 2, 1, 1, 1, 64),
    "dilated": (2, 5, 9, 8, 16, (3, 2), (1, 2), (2, 1), (2, 3), 1, 20),
    "grouped": (2, 24, 5, 5, 32, (3, 3), 1, 1, 1, 2, 9),
    "largest": (1, 257, 1, 1, 20, (1, 1), 1, 0, 1, 1, 256),
    "cut blocks": (40, 300, 1, 1, 5, (1, 1), 1, 0, 1, 1, 150),
    "block of one": (2, 6, 1, 1, 3, (1, 1), 1, 0, 1, 1, 1),
}


#: Each kernel and what makes its integers.
KERNELS = {"packed": (PackedTernary, quantised), "sums": (AddedTernary, planes)}


def make(
    case: str, terms: int = 3
) -> tuple[Tensor, Conv2dGeometry, list[TernaryBlocks], list[Tensor], torch.Size]:
    n, c, h, w, k, kernel, stride, padding, dilation, groups, block = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    x = torch.randint(-127, 128, (n, c, h, w), generator=generator).float()
    weight = torch.randn(k, c // groups, *kernel, generator=generator)
    geometry = Conv2dGeometry(n, c, h, w, k, kernel, stride, padding, dilation, groups)
    found = [ternary_blocks(r, block, terms) for r in rows_of(weight).chunk(groups)]
    eighths = [
        replace(b, scales=(8 * b.scales).round().clamp(min=1) / 8) for b in found
    ]
    counts = [
        torch.randint(1, terms + 1, b.scales.shape[1:], generator=generator)
        for b in eighths
    ]
    return x, geometry, eighths, counts, weight.shape


def dense(
    x: Tensor,
    geometry: Conv2dGeometry,
    blocks: list[TernaryBlocks],
    counts: list[Tensor],
    shape: torch.Size,
) -> Tensor:
    rows = torch.cat([b.decode(c) for b, c in zip(blocks, counts, strict=True)])
    v = geometry
    weight = weight_of(rows, shape).double()
    return F.conv2d(x.double(), weight, None, v.stride, v.padding, v.dilation, v.groups)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", KERNELS)
def test_equal_to_the_dense_product(name: str, case: str) -> None:
    build, prepare = KERNELS[name]
    x, geometry, blocks, counts, shape = make(case)
    kernel = build(blocks, counts)
    padding = geometry.padding
    q, finite = prepare(x, 1.0, 0, padding)
    bias = torch.arange(geometry.out_channels).float()
    y = kernel.product(q, geometry, bias, 1.0, padding)
    expected = dense(x, geometry, blocks, counts, shape) + bias.view(-1, 1, 1)
    assert finite
    assert torch.equal(y.double(), expected)
    # Terms are disabled, and enabled again, by their scales.
    for fewer in (1, 2, 3):
        enabled = [c.clamp(max=fewer) for c in counts]
        kernel.enable(enabled)
        y = kernel.product(q, geometry, bias, 1.0, padding)
        expected = dense(x, geometry, blocks, enabled, shape) + bias.view(-1, 1, 1)
        assert torch.equal(y.double(), expected)


@pytest.mark.parametrize("name", KERNELS)
def test_the_largest_sums_fit(name: str) -> None:
    build, prepare = KERNELS[name]
    for value in (-128, 127):
        for sign in (-1, 1):
            codes = torch.full((1, 16, 1, 256), sign, dtype=torch.int8)
            blocks = TernaryBlocks(codes, torch.ones(1, 16, 1), 256)
            kernel = build([blocks], [torch.ones(16, 1, dtype=torch.long)])
            x = torch.full((1, 256, 1, 1), float(value))
            q, _ = prepare(x, 1.0, 0)
            geometry = Conv2dGeometry(1, 256, 1, 1, 16, 1)
            y = kernel.product(q, geometry, torch.zeros(16), 1.0, (0, 0))
            assert y.unique().tolist() == [256.0 * value * sign]


@pytest.mark.parametrize("zero", [-128, 0, 5])
def test_quantised_is_rounding(zero: int) -> None:
    x = torch.linspace(-3, 3, 1001).view(1, 7, 11, 13)
    q, finite = quantised(x, 0.017, zero, (1, 2))
    inverse = 1 / torch.tensor(0.017)
    whole = (torch.round(x * inverse) + zero).clamp(-128, 127)
    expected = F.pad(whole, (2, 2, 1, 1), value=zero).permute(0, 2, 3, 1)
    assert finite
    assert torch.equal(q.float(), expected)
    p, finite = planes(x, 0.017, zero, (1, 2))
    assert finite
    assert torch.equal(p.float(), expected.permute(3, 0, 1, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_told(value: float) -> None:
    x = torch.zeros(1, 3, 4, 4)
    x[0, 1, 2, 3] = value
    assert not quantised(x, 1.0, 0)[1]
    assert not planes(x, 1.0, 0)[1]


@pytest.mark.parametrize("name", KERNELS)
def test_threads_do_not_matter(name: str) -> None:
    build, prepare = KERNELS[name]
    x, geometry, blocks, counts, _ = make("strided")
    kernel = build(blocks, counts)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            q, _ = prepare(x, 0.3, 3, geometry.padding)
            bias = torch.zeros(geometry.out_channels)
            results.append(kernel.product(q, geometry, bias, 0.3, geometry.padding))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_packed_in_two_bits() -> None:
    blocks = ternary_blocks(torch.randn(32, 128), 64, 2)
    counts = torch.ones(32, 2, dtype=torch.long)
    counts[16:] = 2
    # 2 bits a code, 32 a scale; the second term of the first 16 rows is not there.
    terms = 32 * 2 + 16 * 2
    assert PackedTernary([blocks], [counts]).bytes == terms * (64 // 4 + 4)


def test_blocks_that_are_too_large_are_refused() -> None:
    blocks = ternary_blocks(torch.randn(2, 300), 300, 1)
    with pytest.raises(ValueError, match=r"blocks of at most 256 .* got blocks of 300"):
        PackedTernary([blocks], [torch.ones(2, 1, dtype=torch.long)])
