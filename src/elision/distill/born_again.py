"""Self-distillation from an earlier run.

Furlanello, Lipton, Tschannen, Itti, Anandkumar, "Born-Again Neural Networks", ICML 2018
(arXiv 1805.04770).
"""

from dataclasses import dataclass

from torch import nn

from elision.distill.hinton import Hinton

__all__ = ["BornAgain"]


@dataclass(frozen=True)
class BornAgain(Hinton):
    """Distillation from an earlier run of the same network.

    The loss is that of :class:`Hinton`, at temperature 1 unless another is given (the
    equal weights of labels and teacher are our own choice). Student and teacher must have
    the same parameters; either may be under a recipe. A generation is a run whose teacher
    is the run before.

    Example:
        >>> from torch import nn
        >>> BornAgain().check(nn.Linear(4, 2), nn.Linear(4, 2))
        >>> BornAgain().weight
        0.5
    """

    temperature: float = 1.0
    weight: float = 0.5

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Raise ValueError unless names and shapes of all parameters are the same."""
        here, there = (
            {name: tuple(p.shape) for name, p in model.named_parameters()}
            for model in (student, teacher)
        )
        for name in {**here, **there}:
            if here.get(name) != there.get(name):
                raise ValueError(
                    "born-again: the teacher is another network than the student "
                    f"({name!r} is {there.get(name, 'not')} there, "
                    f"{here.get(name, 'not')} here); use hinton for two networks"
                )
