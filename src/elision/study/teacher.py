"""The teacher of a study: a network of a finished run, and the digest that names it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from elision.distill import Distillation, network_digest
from elision.workloads import Examples, Metric, Workload

__all__ = ["Teacher", "check_named", "check_taught_alike", "place_of"]


@dataclass(frozen=True)
class Teacher:
    """A trained network that teaches the recipes of a study.

    Attributes:
        name: as the configuration has it: ``RUN`` or ``RUN:RECIPE``.
        recipe: spec of the recipe that it was trained under.
        workload: that it was trained on.
        network: on the CPU, under its recipe.
        score: the metric on its own test examples, after its last epoch.

    Example:
        >>> workload = Workload(name="w", dataset="digits", model="mlp")
        >>> teacher = Teacher("runs/t", "dense", workload, nn.Linear(2, 1), 0.95)
        >>> teacher.text()
        'runs/t: mlp on digits under dense, test accuracy 95.0 %'
    """

    name: str
    recipe: str
    workload: Workload
    network: nn.Module = field(repr=False)
    score: float

    @cached_property
    def digest(self) -> str:
        """Digest of layers and weights: another one is another teacher."""
        return network_digest(self.network)

    @cached_property
    def parameters(self) -> int:
        """Number of the network's parameters."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def metric(self) -> Metric:
        """Of the score."""
        return self.workload.task.metric

    def text(self) -> str:
        """The teacher in words."""
        return (
            f"{self.name}: {self.workload.model} on {self.workload.dataset} under "
            f"{self.recipe}, {self.metric.label} {self.metric.text(self.score)}"
        )

    def summary(self) -> dict[str, Any]:
        """Plain values for ``summary.json``."""
        return {
            "digest": self.digest,
            "recipe": self.recipe,
            "workload": self.workload.name,
            self.metric.name: self.score,
        }


def place_of(name: str) -> tuple[Path, str | None]:
    """Folder and recipe of a teacher: ``RUN`` or ``RUN:RECIPE``; None: the run's first.

    Example:
        >>> place_of("runs/none-of-these")
        (PosixPath('runs/none-of-these'), None)
    """
    for i in [len(name), *(i for i, sign in enumerate(name) if sign == ":")]:
        folder = Path(name[:i]).expanduser()
        if name[:i] and folder.is_dir():
            return folder, name[i + 1 :] or None
    return Path(name).expanduser(), None


def check_named(
    teacher: str | None, spec: str | None, by: tuple[Distillation, ...]
) -> None:
    """Raise ValueError for a teacher that nothing reads, or one that is missing.

    Args:
        teacher: as the configuration has it.
        spec: of the distillations.
        by: the distillations; empty: none.
    """
    wanted = any(not part.own_teacher for part in by)
    if teacher is None and wanted:
        raise ValueError(
            f"distill {spec!r}: needs a teacher; --teacher RUN names the folder of a "
            "finished run"
        )
    if teacher is not None and not by:
        raise ValueError(
            f"teacher {teacher!r}: nothing says what is learnt from it; give --distill, "
            "such as hinton:temperature=4,weight=0.9"
        )
    if teacher is not None and not wanted:
        raise ValueError(
            f"teacher {teacher!r}: distill {spec!r} has a teacher of its own; leave it out"
        )


def check_taught_alike(teacher: Teacher, its: Examples, own: Examples) -> None:
    """Raise ValueError if a teacher's data has other classes, or another vocabulary.

    Args:
        teacher: for the message.
        its: data that it was trained on.
        own: data of the students.
    """
    there, here = (getattr(data, "class_names", None) for data in (its, own))
    if there is not None and here is not None and there != here:
        raise ValueError(
            f"teacher {teacher.name}: tells {len(there)} classes of {its.name!r} "
            f"({_some(there)}), the student {len(here)} of {own.name!r} ({_some(here)}); "
            "give a teacher of the same classes"
        )
    words, known = (_vocabulary(data) for data in (its, own))
    if words is not None and known is not None and words != known:
        raise ValueError(
            f"teacher {teacher.name}: has another vocabulary than {own.name!r}; give a "
            "teacher of the same data set and options"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _vocabulary(data: Examples) -> str | None:
    found: Any = getattr(data, "vocabulary", None)
    return found.to_text() if hasattr(found, "to_text") else None
