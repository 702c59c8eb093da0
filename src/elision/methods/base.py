"""The part that published methods share: their parameters build a recipe's table."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from torch import nn

from elision.common.names import lookup
from elision.layers.recipe import (
    VERSION,
    Recipe,
    Table,
    check_version,
    overrides_from_dict,
    words,
)
from elision.methods.composed import Composed
from elision.operands import TRANSFORMS
from elision.operands.plain import from_plain, parameters_of
from elision.topology.install import refuse_masks

__all__ = ["Method"]


@dataclass(frozen=True)
class Method(Recipe):
    """A recipe whose table follows from a published method's parameters.

    A member is a frozen dataclass of those parameters with one method,
    :meth:`build`, which returns the table, and two class attributes: the short name and
    the BibTeX entry. Its docstring gives the equation, the shapes and every deviation.

    Example:
        >>> from elision.methods import WReSprop
        >>> WReSprop().fitted(steps=300).warmup_steps
        30
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
        """Let the model refuse a state that belongs to another method's masks."""
        refuse_masks(model, self.key)

    def schedule(self, steps: int) -> dict[str, int]:
        """Parameters that depend on the length of a run, for a run of ``steps`` steps."""
        del steps
        return {}

    def fitted(self, steps: int, given: Collection[str] = ()) -> Self:
        """The method with its schedule scaled to a run of ``steps`` steps.

        Published schedules are those of long runs; in a short one, masks would hardly
        move and a warm-up would never end.

        Args:
            steps: number of training steps of the run.
            given: names of the parameters that stay as they are.
        """
        wanted = self.schedule(steps).items()
        return replace(self, **{name: n for name, n in wanted if name not in given})

    def __add__(self, other: object) -> Composed:
        """This method, then another recipe, as one recipe."""
        if not isinstance(other, Recipe):
            return NotImplemented
        return Composed((self, other))

    def __radd__(self, other: object) -> Composed:
        """Another recipe, then this method, as one recipe."""
        if not isinstance(other, Recipe):
            return NotImplemented
        return Composed((other, self))

    def parameters(self) -> dict[str, Any]:
        """The method's own parameters, for a record of the run."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def to_dict(self) -> dict[str, Any]:
        """The method's name and parameters as plain values."""
        own = parameters_of(self, TRANSFORMS, without=_BESIDE)
        head = {"version": VERSION, "method": self.key, "parameters": own}
        return {**head, **self._selected_to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        check_version(values)
        for key in values:
            keys = ("version", "method", "parameters", *_BESIDE)
            lookup("key of a method's recipe", key, dict.fromkeys(keys))
        lookup("method of this class", str(values.get("method")), {cls.key: cls})
        given = values.get("parameters", {})
        known = {f.name: f for f in fields(cls) if f.init and f.name not in _BESIDE}
        for parameter in given:
            lookup(f"parameter of method {cls.key!r}", parameter, known)
        own = {name: from_plain(value, TRANSFORMS) for name, value in given.items()}
        overrides = overrides_from_dict(values)
        products = words("products", values.get("products", ()))
        if "dense" in own:
            own["dense"] = words("dense", own["dense"])
        return cls(**own, overrides=overrides, products=products)


#: Parameters that a recipe's plain form holds beside a method's own.
_BESIDE = ("overrides", "products")
