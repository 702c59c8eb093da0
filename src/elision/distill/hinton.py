"""Softened class scores.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning
Workshop 2014 (arXiv 1503.02531), section 2.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.checks import number
from elision.common.declared import fit_fields
from elision.distill.base import Distillation, Outputs, whole

__all__ = ["Hinton"]


@dataclass(frozen=True)
class Hinton(Distillation):
    """Distillation of class scores at a temperature T, with weight a.

    ``L = (1-a)·CE(z_s, y) + a·T²·KL(softmax(z_t/T) ‖ softmax(z_s/T))``, the divergence
    summed over classes and averaged over examples. The term's gradient for ``z_s`` is
    ``a·T·(softmax(z_s/T) - softmax(z_t/T))`` an example; T² keeps its size as T grows,
    where it tends to ``a·(z̃_s - z̃_t)/classes``, with the means of the scores removed.
    Of a text the divergence is summed over a sentence's tokens, as the labels' loss is.

    Attributes:
        temperature: T, above 0.
        weight: a in [0, 1]; 0 is training without a teacher, bit for bit.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> import torch
        >>> teacher, student = Outputs(torch.tensor([[2.0, 0]]), 1), torch.zeros(1, 2)
        >>> hinton = Hinton(temperature=2.0, weight=1.0)
        >>> term = hinton.term(Outputs(student, 1), hinton.lesson(teacher), None)
        >>> round(float(term), 6)
        0.443776
    """

    temperature: float = 4.0
    weight: float = 0.9

    def __post_init__(self) -> None:
        fit_fields(self)
        name = type(self).__name__
        number(name, "temperature", self.temperature, "> 0")
        number(name, "weight", self.weight, "[0, 1]")

    @property
    def label_share(self) -> float:
        """a: what the labels' loss gives way to."""
        return self.weight

    def lesson(self, teacher: Outputs) -> tuple[Tensor, ...]:
        """The teacher's scores ``(M, classes)``."""
        return (teacher.scores,)

    def term(
        self, student: Outputs, lesson: tuple[Tensor, ...], beside: nn.Module | None
    ) -> Tensor:
        """``a·T²·KL``, mean over the batch's examples."""
        del beside
        (taught,) = lesson
        scores, heat = whole(student.scores), self.temperature
        if taught.shape != scores.shape:
            raise ValueError(
                f"the teacher answers with scores of {taught.shape[-1]} classes, the "
                f"student with {scores.shape[-1]} ({tuple(taught.shape)} and "
                f"{tuple(scores.shape)}); give a teacher of the same classes"
            )
        divergence = F.kl_div(
            F.log_softmax(scores / heat, -1),
            F.log_softmax(whole(taught) / heat, -1),
            reduction="sum",
            log_target=True,
        )
        return self.weight * heat**2 * divergence / student.examples
