"""Gradient error of a policy, compared with the sampling noise of the batch.

The gradient of a batch is the full gradient plus sampling noise. The error of a lossy
policy matters only where it is not small against that noise. Both are variances of the
same weight gradients, so they are compared layer by layer (GACT's rule warns where the
codec's share exceeds a tenth).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from elision.common.restoring import restored
from elision.memory.saver import saver

__all__ = ["HIDDEN", "NoiseShare", "codec_noise"]

#: Share of the batch noise up to which a codec counts as hidden (GACT).
HIDDEN = 0.1


@dataclass(frozen=True)
class NoiseShare:
    """Two variances of one parameter's gradient, each summed over its elements.

    Attributes:
        parameter: name.
        batch_variance: of the gradients of different batches: sampling noise.
        codec_variance: mean squared error that the policy adds to a batch's gradient.

    Example:
        >>> found = NoiseShare("0.weight", batch_variance=2.0, codec_variance=0.1)
        >>> found.share, found.hidden
        (0.05, True)
    """

    parameter: str
    batch_variance: float
    codec_variance: float

    @property
    def share(self) -> float:
        """Codec variance over batch variance; infinite if there is no batch noise."""
        if self.batch_variance:
            return self.codec_variance / self.batch_variance
        return float("inf") if self.codec_variance else 0.0

    @property
    def hidden(self) -> bool:
        """True if the batch's noise is at least ten times the codec's."""
        return self.share <= HIDDEN


def codec_noise(
    model: nn.Module,
    loss: Callable[[Any], torch.Tensor],
    batches: Sequence[Any],
    policy: Any,
) -> list[NoiseShare]:
    """Compare a policy's gradient error with the noise of the batch, per parameter.

    Runs two passes per batch, one plain and one under the policy, with the same random
    numbers. Gradients, buffers and the random state are put back.

    Args:
        model: the module whose parameters' gradients are compared.
        loss: batch -> scalar loss, computed with ``model``.
        batches: at least two batches of the size that is trained with.
        policy: as for :class:`~elision.memory.saver`.

    Raises:
        ValueError: fewer than two batches.
    """
    if len(batches) < 2:
        raise ValueError(f"batch noise needs at least two batches, got {len(batches)}")
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    mean = [torch.zeros_like(p) for p in parameters]
    squares, errors = [0.0] * len(names), [0.0] * len(names)

    def gradient(batch: Any, seed: int, chosen: Any) -> Sequence[torch.Tensor]:
        torch.manual_seed(seed)
        with restored(model):
            with saver(model, chosen):
                value = loss(batch)
            return torch.autograd.grad(value, parameters, materialize_grads=True)

    with torch.random.fork_rng():
        for seed, batch in enumerate(batches):
            exact = gradient(batch, seed, "none")
            lossy = gradient(batch, seed, policy)
            for i, (a, b) in enumerate(zip(exact, lossy, strict=True)):
                mean[i] += a / len(batches)
                squares[i] += float(a.square().sum())
                errors[i] += float((b - a).square().sum()) / len(batches)
    count = len(batches)
    return [
        NoiseShare(
            name,
            max(squares[i] - count * float(mean[i].square().sum()), 0.0) / (count - 1),
            errors[i],
        )
        for i, name in enumerate(names)
    ]
