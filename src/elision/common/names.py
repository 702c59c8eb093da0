"""Lookup by name, with the valid names in the error."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["lookup"]

T = TypeVar("T")


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return ``table[name]``; an unknown name is answered with the valid ones.

    Args:
        kind: noun for the message ("recipe", "accelerator", ...).
        name: the name given.
        table: the valid names and their values.

    Raises:
        ValueError: ``name`` is not in ``table``; the message suggests the nearest name
            and lists all of them.

    Example:
        >>> lookup("recipe", "swatt", {"dense": 1, "swat": 2})
        Traceback (most recent call last):
        ValueError: unknown recipe 'swatt' (did you mean 'swat'?); known: dense, swat
    """
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown {kind} {name!r}{hint}; known: {', '.join(table)}")
