"""What a distillation is: a term of a student's loss that reads a teacher's outputs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from elision.common.checks import number
from elision.common.declared import fit_fields

__all__ = ["Distillation", "LayerPairs", "Outputs", "whole"]


@dataclass(frozen=True)
class Outputs:
    """What a network said to a batch.

    Attributes:
        scores: ``(M, classes)``, the rows of logits that the labels' loss reads: one an
            image, or one a token.
        examples: examples of the batch, over which losses are averaged: M for images,
            sentences for text.
        layers: outputs of named layers, of any shape whose first axis counts examples.

    Example:
        >>> Outputs(torch.zeros(4, 10), 4).layers
        {}
    """

    scores: Tensor
    examples: int
    layers: Mapping[str, Tensor] = field(default_factory=dict)


class Distillation(ABC):
    """A term that a teacher adds to a student's loss; a frozen dataclass of parameters.

    The whole loss is ``(1 - sum of label shares)·(loss of the labels) + sum of terms``.
    What a distillation reads of the teacher is apart from the term (:meth:`lesson`), so
    that it can be kept on disk and read again.

    Attributes:
        weight: factor of the term; at 0 neither teacher nor term is computed.

    Example:
        >>> from elision.distill import Hinton
        >>> Hinton(temperature=2.0, weight=0.5).label_share
        0.5
    """

    #: Whether the teacher is made of the student's own weights, and changes with them.
    own_teacher: ClassVar[bool] = False

    weight: float

    @property
    def label_share(self) -> float:
        """Share of the labels' loss that gives way to the term, in [0, 1]."""
        return 0.0

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's layers whose outputs the term reads."""
        return ()

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Names of the teacher's, pair by pair."""
        return ()

    @property
    def lesson_size(self) -> int:
        """Number of tensors of a lesson."""
        return max(1, len(self.teacher_layers))

    @abstractmethod
    def lesson(self, teacher: Outputs) -> tuple[Tensor, ...]:
        """What the term reads of the teacher, as few values as it can do with."""

    @abstractmethod
    def term(
        self, student: Outputs, lesson: tuple[Tensor, ...], beside: nn.Module | None
    ) -> Tensor:
        """The term, weight included: a scalar with a gradient for the student.

        Args:
            student: what the student said.
            lesson: of :meth:`lesson`, for the same batch.
            beside: of :meth:`modules`.

        Raises:
            ValueError: the outputs' shapes do not fit together; the message says which.
        """

    def modules(self) -> nn.Module | None:
        """Parameters trained beside the student and dropped at the end; None: none."""
        return None

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Raise ValueError if the two networks are not what the distillation is for."""
        del student, teacher  # most take any two


@dataclass(frozen=True)
class LayerPairs(Distillation):
    """Distillation of the outputs of pairs of layers.

    Attributes:
        student: name of a layer of the student, or several.
        teacher: of the teacher's that they learn from, in the same order; none: of the
            same names.
        weight: factor of the term, above or at 0.

    Raises:
        ValueError: no layer, another number of the teacher's than of the student's, or a
            weight that is negative.

    Example:
        >>> from elision.distill import Hints
        >>> Hints(student="layer3", teacher="blocks.4").teacher_layers
        ('blocks.4',)
    """

    student: str | tuple[str, ...]
    teacher: str | tuple[str, ...] = ()
    _: KW_ONLY
    weight: float = 1.0

    def __post_init__(self) -> None:
        fit_fields(self)
        name = type(self).__name__
        number(name, "weight", self.weight, ">= 0")
        if not self.student_layers:
            raise ValueError(f"{name}(student={self.student!r}): must name a layer")
        if len(self.teacher_layers) != len(self.student_layers):
            raise ValueError(
                f"{name}(teacher={self.teacher!r}): must name as many layers as "
                f"student={self.student!r} does, or none"
            )

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's layers."""
        return _names(self.student)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Names of the teacher's layers, pair by pair."""
        return _names(self.teacher) or self.student_layers

    def pairs_text(self, index: int) -> str:
        """A pair of layers in words, for messages."""
        return (
            f"{type(self).__name__}: the student's layer {self.student_layers[index]!r} "
            f"and the teacher's {self.teacher_layers[index]!r}"
        )


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def whole(x: Any) -> Tensor:
    """An output in float32 or wider, whatever autocast or a kernel's layout made of it."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.float()
    return x
