"""A teacher of averaged weights.

Tarvainen, Valpola, "Mean Teachers are Better Role Models", NIPS 2017 (arXiv 1703.01780).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from elision.common.checks import number
from elision.distill.hinton import Hinton

__all__ = ["Average", "follow"]


@dataclass(frozen=True)
class Average(Hinton):
    """Distillation from the exponential moving average of the student's own weights.

    ``θ' <- decay·θ' + (1-decay)·θ`` after every step; ``θ'`` begins as ``θ``. The teacher
    answers in evaluation mode, under the student's recipe, and its scores are read as
    :class:`Hinton` reads them.

    Deviations: the divergence of softened scores where the paper has the mean square of
    probabilities, the same augmented batch for both, and a fixed decay and weight.

    Attributes:
        temperature: T, above 0.
        weight: a in [0, 1].
        decay: in [0, 1); 0.99 is our own choice, for runs of a few hundred steps.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Average(decay=1.0)
        Traceback (most recent call last):
        ValueError: Average(decay=1.0): must be a number in [0, 1)
    """

    own_teacher: ClassVar[bool] = True

    temperature: float = 1.0
    weight: float = 0.5
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        number("Average", "decay", self.decay, "[0, 1)")


@torch.no_grad()
def follow(average: nn.Module, student: nn.Module, decay: float) -> None:
    """Move a network's floating-point weights towards another's; buffers become its own.

    Args:
        average: a copy of the student, changed in place.
        student: the network that is trained.
        decay: share of the old average that stays.

    Example:
        >>> average, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(average.weight), nn.init.ones_(student.weight)
        >>> follow(average, student, 0.75)
        >>> average.weight.item()
        0.25
    """
    for own, its in zip(average.parameters(), student.parameters(), strict=True):
        own.lerp_(its, 1 - decay)
    for own, its in zip(average.modules(), student.modules(), strict=True):
        for name, buffer in its._buffers.items():
            kept = own._buffers.get(name)
            if buffer is None or kept is None or kept.shape != buffer.shape:
                own._buffers[name] = None if buffer is None else buffer.clone()
            else:
                kept.copy_(buffer)
