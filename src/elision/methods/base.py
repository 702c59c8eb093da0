"""What the published methods share: their parameters build a recipe's table."""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from torch import nn

from elision.layers.recipe import Recipe, Table
from elision.topology.install import refuse_masks

__all__ = ["Method"]


@dataclass(frozen=True)
class Method(Recipe):
    """A recipe whose table follows from a published method's parameters.

    A member is a frozen dataclass of those parameters with one method,
    :meth:`build`, which returns the table, and two class attributes: the short name and
    the BibTeX entry. Its docstring gives the equation, the shapes and every deviation.
    """

    name: str = field(default="", init=False, repr=False)
    table: Table = field(default_factory=Table, init=False, repr=False)

    #: Short name, as the command line knows the method.
    key: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.key)
        object.__setattr__(self, "table", self.build())

    def build(self) -> Table:
        """The table that the parameters stand for.

        Raises:
            ValueError: a parameter is out of its range.
        """
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> None:
        """Let the model refuse a state that another method's masks belong to."""
        refuse_masks(model, self.key)

    def schedule(self, steps: int) -> dict[str, int]:
        """Parameters that depend on the length of a run, for one of ``steps`` steps."""
        del steps
        return {}

    def fitted(self, steps: int, given: Collection[str] = ()) -> Self:
        """The method with its schedule set for a run of so many steps.

        Published schedules are those of long runs; in a short one, masks would hardly
        move and a warm-up would never end.

        Args:
            steps: of the run.
            given: parameters that stay as they are.
        """
        wanted = self.schedule(steps).items()
        return replace(self, **{name: n for name, n in wanted if name not in given})

    def parameters(self) -> dict[str, Any]:
        """The method's own parameters, for a record of the run."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("name", "table")
        }
