"""A node as the readers of operators see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elision.products import Geometry

__all__ = ["Operation", "Products", "Sizes", "UnreadError", "misfit"]

Sizes = tuple[int, ...]

#: Products of one operator: what follows the node's name, and the shape.
Products = list[tuple[str, Geometry]]


class UnreadError(Exception):
    """The products of a node are not read; the message says of what kind it is."""


@dataclass(frozen=True)
class Operation:
    """A node as far as it is known before the graph runs.

    Attributes:
        shapes: of its inputs; None where unknown or where an optional one is absent.
        constants: whether each input is the same in every run, as weights are.
        attributes: by name, as Python values.
    """

    shapes: Sequence[Sizes | None]
    constants: Sequence[bool]
    attributes: Mapping[str, Any]

    def shape(self, index: int) -> Sizes:
        """Shape of an input.

        Raises:
            UnreadError: it is not known.
        """
        found = self.shapes[index] if index < len(self.shapes) else None
        if found is None:
            raise UnreadError("of unknown shape")
        return found

    def numbers(self, name: str, default: Sizes) -> Sizes:
        """An attribute that holds integers."""
        return tuple(self.attributes.get(name, default))


def misfit(*shapes: Sizes) -> ValueError:
    """The error of operands that do not fit together."""
    return ValueError(f"shapes {' and '.join(map(str, shapes))} do not fit together")
