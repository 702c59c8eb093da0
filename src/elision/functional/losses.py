"""Cross-entropy by the alternatives to softmax: what a network is trained with.

Each is ``-log p_y`` of the softmax of the same name, mean over the targets. The arguments
``weight``, ``ignore_index`` and ``reduction`` are those of
:func:`torch.nn.functional.cross_entropy`.
"""

import torch.nn.functional as F
from torch import Tensor

from elision.functional.softmax import (
    log_sm_softmax,
    log_sm_taylor_softmax,
    log_taylor_softmax,
)

__all__ = ["sm_softmax_loss", "sm_taylor_softmax_loss", "taylor_softmax_loss"]

#: Index that torch's losses leave out unless told otherwise.
_IGNORED = -100


def taylor_softmax_loss(
    z: Tensor,
    target: Tensor,
    order: int = 2,
    *,
    backward: str = "finite",
    check: bool = True,
    weight: Tensor | None = None,
    ignore_index: int = _IGNORED,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy by :func:`elision.functional.taylor_softmax`.

    Args:
        z: logits, ``(N, C)``, ``(N, C, d1, ...)`` or ``(C,)``.
        target: class indices, ``(N,)``, ``(N, d1, ...)`` or none-dimensional.
        order: of the series, even.
        backward: ``"infinite"`` gives the gradient ``p - y``.
        check: warn once where the series is not monotone.
        weight: of each class, ``(C,)``.
        ignore_index: target that is left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> taylor_softmax_loss(z, torch.tensor([0]))
        tensor(0.5878)
    """
    log_p = log_taylor_softmax(z, order, _classes(z), backward=backward, check=check)
    return _loss(log_p, target, weight, ignore_index, reduction)


def sm_softmax_loss(
    z: Tensor,
    target: Tensor,
    margin: float = 0.5,
    *,
    weight: Tensor | None = None,
    ignore_index: int = _IGNORED,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy by :func:`elision.functional.sm_softmax`.

    Args:
        z: logits, as of :func:`taylor_softmax_loss`.
        target: class indices.
        margin: m ≥ 0, taken from the target's logit.
        weight: of each class.
        ignore_index: target that is left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> sm_softmax_loss(z, torch.tensor([0]), margin=0.6)
        tensor(0.6970)
    """
    given = _marked(target, ignore_index)
    log_p = log_sm_softmax(z, given, margin, _classes(z))
    return _loss(log_p, target, weight, ignore_index, reduction)


def sm_taylor_softmax_loss(
    z: Tensor,
    target: Tensor,
    margin: float = 0.5,
    order: int = 2,
    *,
    backward: str = "finite",
    check: bool = True,
    weight: Tensor | None = None,
    ignore_index: int = _IGNORED,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy by :func:`elision.functional.sm_taylor_softmax`.

    Arguments are those of :func:`sm_softmax_loss` and :func:`taylor_softmax_loss`.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> sm_taylor_softmax_loss(z, torch.tensor([0]), margin=0.6)
        tensor(0.7809)
    """
    log_p = log_sm_taylor_softmax(
        z,
        _marked(target, ignore_index),
        *(margin, order, _classes(z)),
        backward=backward,
        check=check,
    )
    return _loss(log_p, target, weight, ignore_index, reduction)


def _classes(z: Tensor) -> int:
    """The dimension of the classes, as torch's losses have it."""
    return 0 if z.dim() == 1 else 1


def _marked(target: Tensor, ignore_index: int) -> Tensor:
    """Targets, a negative one in the place of those that are left out."""
    return (
        target.masked_fill(target == ignore_index, -1) if ignore_index >= 0 else target
    )


def _loss(
    log_p: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    weight = weight if weight is None else weight.to(log_p.dtype)
    return F.nll_loss(
        log_p, target, weight, ignore_index=ignore_index, reduction=reduction
    )
