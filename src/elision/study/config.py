"""What a study is asked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from elision.accelerators import ACCELERATORS
from elision.common.specs import build
from elision.layers.recipe import Recipe
from elision.methods import check_recipe, make_recipe
from elision.study.probes import PROBES
from elision.workloads import DEFAULT_WORKLOAD, Workload, find_workload

__all__ = ["DEFAULT_ACCELERATORS", "DEFAULT_RECIPES", "StudyConfig", "file_name"]

#: What a study compares when nothing else is asked for.
DEFAULT_RECIPES = (
    "dense",
    "swat:sparsity=0.9",
    "w-resprop:reuse=0.9",
    "meprop-unified:keep=0.1",
)
DEFAULT_ACCELERATORS = (
    "dense",
    "scnn",
    "ant",
    "scnn:startup_cycles=5",
    "ant:startup_cycles=5",
)


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study is asked.

    Attributes:
        workload: name of a workload preset.
        recipes: specs (:mod:`elision.common.specs`); the first is the baseline that the
            others are compared with.
        accelerators: specs of the machines; none leaves out the simulation.
        probes: specs of what else is asked of every trained recipe.
        seed: of initial weights, batches and augmentation.
        epochs: passes over the data; None for the workload's own number.
        data: folder of the data set, for those that need one.
        record: number of epochs whose last steps are recorded, spread over the run.
        samples: images kept of each recorded step.

    Raises:
        ValueError: an unknown workload, recipe, accelerator, probe or parameter, or a
            number out of range.
    """

    workload: str = DEFAULT_WORKLOAD
    recipes: tuple[str, ...] = DEFAULT_RECIPES
    accelerators: tuple[str, ...] = DEFAULT_ACCELERATORS
    probes: tuple[str, ...] = ()
    seed: int = 0
    epochs: int | None = None
    data: str | None = None
    record: int = 2
    samples: int = 2

    def __post_init__(self) -> None:
        find_workload(self.workload)
        minima = {"seed": 0, "epochs": 1, "record": 1, "samples": 1}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} must be >= {minimum}, got {value}")
        if not self.recipes:
            raise ValueError("recipes: give at least one")
        checks: dict[str, Callable[[str], object]] = {
            "recipe": check_recipe,
            "accelerator": lambda spec: build("accelerator", spec, ACCELERATORS),
            "probe": lambda spec: build("probe", spec, PROBES),
        }
        for kind, check in checks.items():
            specs = getattr(self, f"{kind}s")
            if len(set(specs)) != len(specs):
                raise ValueError(f"{kind}s: one is given twice in {', '.join(specs)}")
            for spec in specs:
                check(spec)

    @classmethod
    def from_toml(cls, values: dict[str, Any]) -> "StudyConfig":
        """The configuration that a run folder holds; lists become tuples."""
        return cls(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}  # pyright: ignore[reportArgumentType]
        )

    def resolved_workload(self) -> Workload:
        """The workload, with this study's number of epochs."""
        workload = find_workload(self.workload)
        return (
            workload if self.epochs is None else replace(workload, epochs=self.epochs)
        )

    def recorded_epochs(self) -> tuple[int, ...]:
        """The epochs whose last step is recorded: the last one, and evenly before it."""
        epochs = self.resolved_workload().epochs
        count = min(self.record, epochs)
        return tuple(epochs * (i + 1) // count - 1 for i in range(count))

    def recipe(self, spec: str, steps: int) -> Recipe:
        """The recipe; schedule parameters not given are scaled to ``steps``."""
        return make_recipe(spec, steps=steps)


def file_name(spec: str) -> str:
    """A spec as a file name: ``swat:sparsity=0.9`` becomes ``swat-sparsity-0.9``."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in spec)
