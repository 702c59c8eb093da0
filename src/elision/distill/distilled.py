"""The loss of a student that has a teacher, for any loop."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.checks import number
from elision.common.restoring import restored
from elision.distill.average import Average, follow
from elision.distill.base import Distillation, Outputs
from elision.distill.hinton import Hinton
from elision.distill.hints import Hints
from elision.distill.telling import ANSWER, check_layers, heard, tensors_of, told

__all__ = ["Distilled", "Lesson"]

#: What each distillation reads of the teacher, for one batch.
Lesson = tuple[tuple[Tensor, ...], ...]

#: Rows of class scores of a network's answer, and the number of examples.
Reading = Callable[[Any], tuple[Tensor, int]]


#: Prefix of an average's values in a state_dict.
_AVERAGE = "average."


class Distilled(nn.Module):
    """Loss of a student that learns from labels and from a teacher.

    ``(1 - a)·loss(student(x), y) + a·T²·KL(teacher ‖ student) + terms``. The teacher sees
    the very inputs of the student, in evaluation mode and without a gradient. Neither
    network is a part of this module: its parameters are those of the regressors of
    hints alone, which an optimiser must train with the student's and nobody needs
    afterwards, and a student's ``state_dict`` is what it was.

    The student may be elided, before or after. Weight 0 is training without a teacher,
    bit for bit.

    Args:
        student: the network that is trained.
        teacher: a trained network; None: the distillations have their own.
        temperature: T of :class:`Hinton`.
        weight: a of :class:`Hinton`.
        hints: layer of the student -> layer of the teacher (:class:`Hints`).
        by: distillations in place of ``temperature``, ``weight`` and ``hints``; see
            :func:`elision.distill.make_distillations`.
        loss: of the student's answer and the targets, a mean over examples.

    Raises:
        ValueError: a number is out of range, a layer is unknown (lists the known ones),
            label shares above 1 together, or no teacher where one is needed.

    Example:
        >>> from elision.distill import Distilled
        >>> student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        >>> loss = Distilled(student, teacher, temperature=4.0, weight=0.9)
        >>> value = loss(torch.ones(2, 4), torch.tensor([0, 1]))
        >>> value.backward()
        >>> student.weight.grad is not None, teacher.weight.grad, list(loss.state_dict())
        (True, None, [])
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        temperature: float = 4.0,
        weight: float = 0.9,
        hints: Mapping[str, str] | None = None,
        *,
        by: Sequence[Distillation] | None = None,
        loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    ) -> None:
        super().__init__()
        if by is None:
            hinted = [Hints(tuple(hints), tuple(hints.values()))] if hints else []
            by = [Hinton(temperature, weight), *hinted]
        self._loss = loss
        self.active = tuple(part for part in by if part.weight)
        self.label_share = sum(part.label_share for part in self.active)
        number("Distilled", "sum of label shares", self.label_share, "[0, 1]")
        averages = [part for part in self.active if isinstance(part, Average)]
        if len({part.decay for part in averages}) > 1:
            raise ValueError("distillation: averages of two decays; give one")
        self.decay = averages[0].decay if averages else None
        self._check_networks(student, teacher)
        # In a tuple, so that they are no modules of this one.
        self._networks = student, teacher
        self._average: tuple[nn.Module, ...] = ()
        self.beside = nn.ModuleDict(
            {str(i): m for i, part in enumerate(self.active) if (m := part.modules())}
        )

    def _check_networks(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if student is teacher:
            raise ValueError("distillation: student and teacher are the same object")
        for part in self.active:
            check_layers("student", student, part.student_layers)
            if part.own_teacher:
                continue
            if teacher is None:
                name = type(part).__name__
                raise ValueError(f"distillation: {name} needs a teacher; none is given")
            check_layers("teacher", teacher, part.teacher_layers)
            part.check(student, teacher)

    @property
    def student(self) -> nn.Module:
        """The network that is trained."""
        return self._networks[0]

    @property
    def teacher(self) -> nn.Module | None:
        """The network that it learns from; None: an average of its own weights."""
        return self._networks[1]

    @property
    def average(self) -> nn.Module | None:
        """The average of the student's weights, if a distillation has one."""
        if self.decay is not None and not self._average:
            self._average = (copy.deepcopy(self.student).requires_grad_(False),)
        return self._average[0] if self._average else None

    def forward(self, inputs: Any, targets: Any) -> Tensor:
        """The loss of a batch: a scalar with a gradient for the student.

        Args:
            inputs: what both networks are called with: a tensor, or a tuple of arguments.
            targets: what the labels' loss reads.

        Raises:
            ValueError: outputs of the two networks do not fit together; says which.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        lesson = self.lesson(lambda network: network(*given), _scores)
        with self.listening() as said:
            answer = self.student(*given)
        return self.total(self._loss(answer, targets), said, lesson, _scores)

    def lesson(self, ask: Callable[[nn.Module], Any], reading: Reading) -> Lesson:
        """What the distillations read of their teachers, for one batch.

        Args:
            ask: calls a network with the batch.
            reading: class scores of its answer.
        """
        found: dict[bool, Outputs] = {}
        for own in {part.own_teacher for part in self.active}:
            teacher = self.average if own else self.teacher
            assert teacher is not None
            parts = [part for part in self.active if part.own_teacher == own]
            layers = tuple({name for part in parts for name in part.teacher_layers})
            with told(teacher), heard(teacher, layers) as said:
                ask(teacher)
                found[own] = _outputs(said, layers, reading)
        return tuple(part.lesson(found[part.own_teacher]) for part in self.active)

    @contextmanager
    def listening(self) -> Iterator[dict[str, Any]]:
        """Context around a call of the student, which notes what the terms read."""
        if not self.active:
            yield {}
            return
        with heard(self.student, self._student_layers()) as said:
            yield said

    def _student_layers(self) -> tuple[str, ...]:
        return tuple({name for part in self.active for name in part.student_layers})

    def total(
        self, labels: Tensor, said: Mapping[str, Any], lesson: Lesson, reading: Reading
    ) -> Tensor:
        """The whole loss, from that of the labels and what was heard of the student.

        Args:
            labels: loss of the labels, a scalar.
            said: of :meth:`listening`.
            lesson: of :meth:`lesson`, for the same batch.
            reading: class scores of the student's answer.
        """
        if not self.active:
            return labels
        student = _outputs(said, self._student_layers(), reading)
        loss = (1 - self.label_share) * labels if self.label_share else labels
        for i, (part, its) in enumerate(zip(self.active, lesson, strict=True)):
            beside = dict(self.beside.items()).get(str(i))
            loss = loss + part.term(student, its, beside)
        return loss

    def try_out(self, ask: Callable[[nn.Module], Any], reading: Reading) -> None:
        """Ask both networks once, so that what does not fit is found before training.

        Regressors get their weights. Student and random state stay as they are.

        Raises:
            ValueError: the teacher does not take the inputs, or outputs do not fit.
        """
        if self.teacher is not None and self.active:
            try:
                with told(self.teacher):
                    ask(self.teacher)
            except Exception as error:  # a network may fail in any way
                reason = str(error).strip().partition("\n")[0]
                raise ValueError(
                    f"the teacher does not take the student's data: {reason}"
                ) from error
        with restored(self.student, random_state=True), told(self.student):
            with self.listening() as said:
                ask(self.student)
            if not any(part.own_teacher for part in self.active):
                lesson = self.lesson(ask, reading)
                self.total(torch.zeros(()), said, lesson, reading)

    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        """The regressors' weights, and the average that is no module of this one."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.average is not None:
            for name, value in self.average.state_dict().items():
                destination[f"{prefix}{_AVERAGE}{name}"] = value

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **named: Any
    ) -> None:
        first = f"{prefix}{_AVERAGE}"
        rest = {k: v for k, v in state_dict.items() if not k.startswith(first)}
        super()._load_from_state_dict(rest, prefix, *args, **named)
        if self.average is not None:
            own = {k: v for k, v in state_dict.items() if k.startswith(first)}
            self.average.load_state_dict(
                {k.removeprefix(first): v for k, v in own.items()}
            )

    def step_done(self) -> None:
        """The student's weights have moved: the average follows, if there is one."""
        if self.decay is not None:
            average = self.average
            assert average is not None
            follow(average, self.student, self.decay)


def _scores(answer: Any) -> tuple[Tensor, int]:
    if not isinstance(answer, Tensor) or answer.ndim != 2:
        kind = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer)
        raise ValueError(
            f"distillation: a network must answer with scores (N, classes); it gave {kind}"
        )
    return answer, len(answer)


def _outputs(
    said: Mapping[str, Any], layers: Sequence[str], reading: Reading
) -> Outputs:
    scores, examples = reading(said[ANSWER])
    return Outputs(scores, examples, tensors_of(said, layers))
