"""Teaching: distillations, a teacher and a place for its lessons, as a run is given them."""

from dataclasses import dataclass

from torch import nn

from elision.distill.base import Distillation
from elision.distill.cache import LessonCache
from elision.distill.distilled import Distilled
from elision.workloads import Examples, Task

__all__ = ["Teaching"]


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Who teaches a training run, and how.

    Attributes:
        by: distillations (:func:`elision.distill.make_distillations`).
        teacher: a trained network; None: the distillations have their own.
        cache: where the teacher's outputs are kept; None: they are computed at every
            step, which gives the same bits.

    Raises:
        ValueError: no distillation, or no teacher where one is needed.

    Example:
        >>> from elision.distill import make_distillations
        >>> teaching = Teaching(by=make_distillations("hinton"), teacher=nn.Linear(4, 3))
        >>> teaching.by[0].weight
        0.9
    """

    by: tuple[Distillation, ...]
    teacher: nn.Module | None = None
    cache: LessonCache | None = None

    def __post_init__(self) -> None:
        if not self.by:
            raise ValueError("Teaching(by=()): must be at least one distillation")
        missing = [type(part).__name__ for part in self.by if not part.own_teacher]
        if missing and self.teacher is None:
            raise ValueError(
                f"distillation: {missing[0]} needs a teacher; none is given"
            )

    def distilled(self, student: nn.Module, task: Task, dataset: Examples) -> Distilled:
        """The loss of a student, tried out on two test examples.

        Args:
            student: not elided yet; it may be later.
            task: of the student's training.
            dataset: that it is trained on.

        Raises:
            ValueError: an unknown layer (lists those there are), a teacher of other
                classes or channels, layers of different sizes, or a task whose answers
                are no class scores.
        """
        found = Distilled(student, self.teacher, by=self.by)
        device = next(student.parameters()).device
        batch = tuple(x.to(device) for x in next(iter(task.test_batches(dataset, 2))))
        found.try_out(
            lambda network: task.answer(network, batch),
            lambda answer: (task.class_scores(answer, batch), task.size(batch)),
        )
        return found
