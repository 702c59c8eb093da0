"""Template of a candidate: a workload and a recipe's spec with places for the knobs."""

import re
from dataclasses import dataclass, field
from typing import Any

from elision.study.search.space import Point, Space
from elision.study.search.trial import Trial
from elision.training import Execution
from elision.workloads import Workload

__all__ = ["Template"]

#: A place in a spec that a dimension of the space fills.
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Template:
    """Trials that differ in a few words of the recipe and settings of the workload.

    A dimension whose name stands in braces in the recipe fills that place; the dimension
    ``recipe`` is the whole spec; any other one is a setting of the workload, such as ``lr``.

    Attributes:
        workload: whose settings hold where the point says nothing.
        recipe: spec, such as ``"swat:sparsity={sparsity}"``.
        seed, held_out, execution: of every trial.

    Example:
        >>> from elision.study.search.space import Knob
        >>> from elision.workloads import find_workload
        >>> template = Template(
        ...     workload=find_workload("digits-cnn"), recipe="swat:sparsity={sparsity}"
        ... )
        >>> template.check(Space((Knob("sparsity", 0.5, 0.9), Knob("lr", 0.01, 0.1))))
        >>> trial = template({"sparsity": 0.75, "lr": 0.05})
        >>> trial.recipe, trial.workload.learning_rate
        ('swat:sparsity=0.75', 0.05)
    """

    workload: Workload
    recipe: str = "dense"
    seed: int = 0
    held_out: float = 0.2
    execution: Execution = field(default_factory=Execution)

    def __call__(self, point: Point) -> Trial:
        """The trial of a point.

        Raises:
            ValueError: an unknown recipe or setting, or a value out of its range.
        """
        spec = str(point.get("recipe", self.recipe))
        filled = set(_PLACE.findall(spec)) | {"recipe"}
        for place in filled & point.keys():
            spec = spec.replace(f"{{{place}}}", str(point[place]))
        settings = {name: v for name, v in point.items() if name not in filled}
        workload = self.workload
        if settings:
            workload = workload.changed(**settings, name=workload.name)
        return Trial(
            workload=workload,
            recipe=spec,
            seed=self.seed,
            held_out=self.held_out,
            execution=self.execution,
        )

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit, before anything is trained.

        Raises:
            ValueError: a place that no dimension fills, a dimension that is neither a place
                nor a setting, a value that is refused, or epochs that differ.
        """
        names = [dimension.name for dimension in space.dimensions]
        if "recipe" not in names:
            for place in _PLACE.findall(self.recipe):
                if place not in names:
                    raise ValueError(
                        f"recipe {self.recipe!r}: no dimension fills {{{place}}}; there are "
                        f"{', '.join(names)}"
                    )
        if "epochs" in names:
            raise ValueError(
                "space: epochs are what a search gives out; leave them out"
            )
        for corner in space.corners():
            self(corner)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {
            "workload": self.workload.to_dict(),
            "recipe": self.recipe,
            "seed": self.seed,
            "held_out": self.held_out,
        }
        execution = self.execution.not_default()
        return values | ({"execution": execution} if execution else {})
