"""Cross-entropy against labels that are smoothed: Szegedy et al., CVPR 2016, section 7."""

import torch.nn.functional as F
from torch import Tensor

from elision.common.checks import integer, number

__all__ = ["label_smoothed_loss"]


def label_smoothed_loss(
    scores: Tensor, targets: Tensor, smoothing: float = 0.1, *, pad: int | None = None
) -> Tensor:
    """Summed loss of tokens, ``(1-ε)·(-log p[y]) + ε·mean over v of (-log p[v])``.

    Targets that are padding count for nothing, and the mean is over the classes that can
    be a target: all but the padding. (MLPerf's GNMT smooths over the padding, too; that is
    :func:`torch.nn.functional.cross_entropy` with ``ignore_index``.)

    Args:
        scores: ``(..., V)``, logits.
        targets: ``(...)``, int64.
        smoothing: ε in [0, 1).
        pad: class of the padding; None: there is none.

    Returns:
        The sum over the targets, a scalar that has a gradient. GNMT divides it by the
        number of sentences, so that its learning rate belongs to a length.

    Raises:
        ValueError: the shapes differ, or a number is out of range.

    Example:
        >>> import torch
        >>> loss = label_smoothed_loss(torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([0]))
        >>> round(float(loss), 6)
        0.490753
    """
    number("label_smoothed_loss", "smoothing", smoothing, "[0, 1)")
    classes = scores.shape[-1]
    if scores.shape[:-1] != targets.shape:
        raise ValueError(
            f"label_smoothed_loss: scores {tuple(scores.shape)} need targets of shape "
            f"{tuple(scores.shape[:-1])}, got {tuple(targets.shape)}"
        )
    log_p = scores.flatten(0, -2).log_softmax(-1)
    kept = targets.flatten()
    others = log_p.sum(-1)
    if pad is not None:
        integer("label_smoothed_loss", "pad", pad, f"[0, {classes})")
        log_p, kept, others = (
            x[targets.flatten() != pad] for x in (log_p, kept, others)
        )
        others = others - log_p[:, pad]
        classes -= 1
    likely = F.nll_loss(log_p, kept, reduction="sum")
    return (1 - smoothing) * likely - smoothing * others.sum() / classes
