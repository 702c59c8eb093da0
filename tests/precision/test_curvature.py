"""Second derivatives by random vectors: against the exact Hessian of a small network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from elision.precision import hessian_diagonal, hessian_product, hessian_trace

#: Weight and bias of one layer, weight of the next.
SHAPES = ((4, 3), (4,), (3, 4))
SIZES = [12, 4, 12]


def network() -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Loss of a smooth network of two layers, and its parameters in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, labels = draw(10, 3), torch.arange(10) % 3

    def loss(w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
        hidden = torch.tanh(x @ w1.T + b1)
        return torch.nn.functional.cross_entropy(hidden @ w2.T, labels)

    return loss, [draw(*shape).requires_grad_() for shape in SHAPES]


def exact_hessian(loss: Callable[..., Tensor], at: list[Tensor]) -> Tensor:
    """The whole Hessian, ``(28, 28)``, by rows."""
    blocks = torch.autograd.functional.hessian(loss, tuple(at))
    rows = [
        torch.cat([block.reshape(n, m) for block, m in zip(row, SIZES, strict=True)], 1)
        for row, n in zip(blocks, SIZES, strict=True)
    ]
    return torch.cat(rows)


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in tensors])


def test_a_product_is_that_of_the_exact_hessian() -> None:
    loss, at = network()
    vectors = [torch.randn_like(x) for x in at]
    found = hessian_product(lambda: loss(*at), at, vectors)
    assert [x.shape for x in found] == [x.shape for x in at]
    torch.testing.assert_close(flat(found), exact_hessian(loss, at) @ flat(vectors))


@pytest.mark.parametrize("probes", [1, 16, 100])
def test_the_diagonal_is_within_its_deviation(probes: int) -> None:
    """The squares beside the diagonal, over the probes, are the variance that is said.

    28 normed errors have a mean square of about 1 (the signs are common to all of them,
    so it varies more than that of independent ones): 3 is far outside for a wrong factor.
    """
    loss, at = network()
    hessian = exact_hessian(loss, at)
    exact = hessian.diagonal()
    variance = (hessian.square().sum(1) - exact.square()) / probes
    found = flat(hessian_diagonal(lambda: loss(*at), at, probes, seed=1))
    normed = (found - exact).square() / variance
    assert float(normed.mean()) < 3
    assert float(normed.max()) < 16  # four deviations


def test_the_diagonal_has_no_bias_and_the_variance_that_is_said() -> None:
    """Over all estimates of one probe each: their mean, and the mean of their squares."""
    loss, at = network()
    hessian = exact_hessian(loss, at)
    exact = hessian.diagonal()
    variance = hessian.square().sum(1) - exact.square()
    found = torch.stack(
        [flat(hessian_diagonal(lambda: loss(*at), at, 1, seed)) for seed in range(200)]
    )
    bias = (found.mean(0) - exact).abs() / (variance / 200).sqrt()
    assert float(bias.max()) < 4
    ratio = (found - exact).square().mean(0) / variance
    assert 0.85 < float(ratio.mean()) < 1.15
    assert float((found[0] - found[1]).abs().max()) > 0  # another seed, other vectors


def test_traces_are_those_of_the_blocks() -> None:
    """Within four deviations: pairs inside of a block count twice, those across once."""
    loss, at = network()
    hessian = exact_hessian(loss, at)
    diagonal = hessian.diagonal().split(SIZES)
    beside = hessian.square().fill_diagonal_(0).split(SIZES)
    found = hessian_trace(lambda: loss(*at), at, probes=100)
    for k, (block, squares) in enumerate(zip(diagonal, beside, strict=True)):
        inside = float(squares.split(SIZES, 1)[k].sum())
        variance = (2 * inside + float(squares.sum()) - inside) / 100
        assert abs(found[k] - float(block.sum())) < 4 * variance**0.5
    estimated = hessian_diagonal(lambda: loss(*at), at, probes=100)
    assert found == pytest.approx([float(d.sum()) for d in estimated])


def test_one_probe_is_exact_where_the_hessian_is_diagonal() -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    [found] = hessian_diagonal(lambda: x.sin().sum(), [x], probes=1)
    torch.testing.assert_close(found, -x.detach().sin())
    assert not found.requires_grad
    assert x.grad is None


def test_a_loss_without_curvature_has_none() -> None:
    """A linear loss, and a tensor that the loss does not read."""
    x, other = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    assert [d.tolist() for d in hessian_diagonal(lambda: x.sum(), [x, other])] == [
        [0.0] * 3,
        [0.0] * 2,
    ]
    assert hessian_trace(lambda: x.square().sum(), [x, other]) == [6.0, 0.0]


def test_it_needs_a_probe() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="probes=0"):
        hessian_diagonal(lambda: x.sum(), [x], probes=0)
