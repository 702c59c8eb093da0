"""Relations between examples.

Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019 (arXiv 1904.05068).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.checks import number
from elision.common.declared import fit_fields
from elision.distill.base import Distillation, Outputs, whole

__all__ = ["Relational", "angles", "distances"]

#: Squared distances below are those of equal points, which have no direction.
_SAME = 1e-12


@dataclass(frozen=True)
class Relational(Distillation):
    """Distillation of the distances and angles between the examples of a batch.

    ``L = weight·(distance·mean over i≠j of h(ψ_D(s), ψ_D(t)) + angle·mean over distinct
    i, j, k of h(ψ_A(s), ψ_A(t)))`` with ``ψ_D = ‖x_i - x_j‖/mean distance``, ``ψ_A`` the
    cosine of the angle at ``x_j`` between ``x_i`` and ``x_k``, and Huber's loss ``h`` of
    threshold 1. ``x`` is a layer's output, flattened, or the class scores; widths of
    student and teacher may differ.

    Deviations: means where the paper has sums, so that weights hold for batches of any
    size. Processes that share a batch relate the examples of their own share.

    Attributes:
        student: layer of the student; none: the class scores.
        teacher: layer of the teacher; none: of the same name.
        weight: factor of both terms (1 is our own choice).
        distance: factor of the distances' term (our own choice).
        angle: factor of the angles' term (our own choice).

    Raises:
        ValueError: a number is negative, or a layer of the teacher alone.

    Example:
        >>> points = torch.tensor([[0.0, 0], [3, 0], [0, 4]])
        >>> relational = Relational()
        >>> lesson = relational.lesson(Outputs(10 * points, 3))
        >>> relational.term(Outputs(points, 3), lesson, None).item() < 1e-6
        True
    """

    student: str | None = None
    teacher: str | None = None
    weight: float = 1.0
    distance: float = 1.0
    angle: float = 2.0

    def __post_init__(self) -> None:
        fit_fields(self)
        for name in ("weight", "distance", "angle"):
            number("Relational", name, getattr(self, name), ">= 0")
        if self.teacher is not None and self.student is None:
            raise ValueError(
                f"Relational(teacher={self.teacher!r}): needs a layer of the student, too"
            )

    @property
    def student_layers(self) -> tuple[str, ...]:
        """The student's layer, if one is named."""
        return () if self.student is None else (self.student,)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The teacher's layer, if one is named."""
        return self.student_layers if self.teacher is None else (self.teacher,)

    def lesson(self, teacher: Outputs) -> tuple[Tensor, ...]:
        """The teacher's points, a row an example."""
        return (_points(teacher, self.teacher_layers),)

    def term(
        self, student: Outputs, lesson: tuple[Tensor, ...], beside: nn.Module | None
    ) -> Tensor:
        """Both terms; 0 where a batch has too few examples to relate."""
        del beside
        own, its = _points(student, self.student_layers), whole(lesson[0])
        total, count = own.new_zeros(()), len(own)
        if self.distance and count >= 2:
            apart = F.smooth_l1_loss(distances(own), distances(its), reduction="sum")
            total = total + self.distance * apart / (count * (count - 1))
        if self.angle and count >= 3:
            bent = F.smooth_l1_loss(angles(own), angles(its), reduction="sum")
            total = total + self.angle * bent / (count * (count - 1) * (count - 2))
        return self.weight * total


def distances(points: Tensor) -> Tensor:
    """``ψ_D``: distances of points over their mean, ``(N, N)``, zero on the diagonal.

    Args:
        points: ``(N, D)``; equal points are at distance zero, without a gradient.

    Example:
        >>> distances(torch.tensor([[0.0], [1], [3]])).tolist()
        [[0.0, 0.5, 1.5], [0.5, 0.0, 1.0], [1.5, 1.0, 0.0]]
    """
    squares = _differences(points).square().sum(-1)
    apart = squares > _SAME
    found = torch.where(apart, squares, 1).sqrt() * apart
    mean = found.sum() / apart.sum().clamp(min=1)
    return found / mean.clamp(min=_SAME**0.5)


def angles(points: Tensor) -> Tensor:
    """``ψ_A``: cosine at point j between i and k, ``(j, i, k)``; zero unless distinct.

    Args:
        points: ``(N, D)``; N³ values are made.

    Example:
        >>> right = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
        >>> round(angles(right)[1, 0, 2].item(), 6), angles(right)[0, 1, 2].item()
        (0.707107, 0.0)
    """
    towards = F.normalize(_differences(points), dim=2, eps=_SAME**0.5)
    cosines = towards @ towards.transpose(1, 2)
    distinct = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    return cosines * distinct  # i = j or k = j has no direction: zero already


def _differences(points: Tensor) -> Tensor:
    """``x_i - x_j`` at ``(j, i)``."""
    return points[None] - points[:, None]


def _points(outputs: Outputs, layers: tuple[str, ...]) -> Tensor:
    found = outputs.layers[layers[0]] if layers else outputs.scores
    if len(found) != outputs.examples:
        raise ValueError(
            f"Relational: {len(found)} rows of class scores for {outputs.examples} "
            "examples; name a layer that answers once an example"
        )
    return whole(found).flatten(1)
