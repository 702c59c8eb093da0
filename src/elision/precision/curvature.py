"""Second derivatives of a loss: products with the Hessian, its diagonal and its trace.

Hutchinson's estimator: with a random vector ``v`` of independent signs, ``E[v·Hv]`` is the
trace of ``H`` and ``E[v ⊙ Hv]`` its diagonal; ``Hv`` costs about two backward passes.

Source: Hutchinson, Communications in Statistics 18, 1989; for the diagonal Bekas, Kokiopoulou
and Saad, Applied Numerical Mathematics 57, 2007. Written here, since it is ten lines of
autograd; ``tests/precision/test_curvature.py`` holds it against the exact Hessian.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elision.common.checks import integer

__all__ = ["hessian_diagonal", "hessian_product", "hessian_trace"]


def hessian_product(
    loss: Callable[[], Tensor], at: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """``H·v``, with ``H`` the Hessian of the loss in all of ``at``.

    Args:
        loss: computes the loss, a scalar, from ``at``.
        at: leaf tensors that require a gradient.
        vectors: of their shapes.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> [hv] = hessian_product(lambda: (x**3).sum(), [x], [torch.ones(2)])
        >>> hv.tolist()
        [6.0, 12.0]
    """
    gradients = torch.autograd.grad(
        loss(), at, create_graph=True, materialize_grads=True
    )
    along = sum((g * v).sum() for g, v in zip(gradients, vectors, strict=True))
    assert isinstance(along, Tensor)
    if not along.requires_grad:  # a loss that is linear has no second derivative
        return [torch.zeros_like(x) for x in at]
    return list(torch.autograd.grad(along, at, materialize_grads=True))


def hessian_diagonal(
    loss: Callable[[], Tensor], at: Sequence[Tensor], probes: int = 8, seed: int = 0
) -> list[Tensor]:
    """The Hessian's diagonal, estimated without bias from ``probes`` random vectors.

    The variance of an entry is the sum of the squares beside it in its row of the Hessian,
    over ``probes``: exact where the Hessian is diagonal.

    Args:
        loss: computes the loss, a scalar, from ``at``.
        at: leaf tensors that require a gradient.
        probes: at least 1.
        seed: of the vectors.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> [diagonal] = hessian_diagonal(lambda: (x**3).sum(), [x], probes=1)
        >>> diagonal.tolist()  # exact, since the Hessian is diagonal
        [6.0, 12.0]
    """
    integer("hessian_diagonal", "probes", probes)
    generator = torch.Generator().manual_seed(seed)
    total = [torch.zeros_like(x, requires_grad=False) for x in at]
    for _ in range(probes):
        signs = [_signs(x, generator) for x in at]
        products = hessian_product(loss, at, signs)
        for sum_, v, hv in zip(total, signs, products, strict=True):
            sum_ += v * hv / probes
    return total


def hessian_trace(
    loss: Callable[[], Tensor], at: Sequence[Tensor], probes: int = 8, seed: int = 0
) -> list[float]:
    """The trace of each tensor's block of the Hessian, from the estimated diagonal.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hessian_trace(lambda: (x**3).sum(), [x])
        [18.0]
    """
    return [float(d.sum()) for d in hessian_diagonal(loss, at, probes, seed)]


def _signs(x: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, x.shape, generator=generator)
    return (2 * drawn - 1).to(x.dtype).to(x.device)
