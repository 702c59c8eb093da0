"""Version of the form of the JSON files that this library writes for other programs."""

from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMA", "VERSION_KEY", "unversioned", "versioned"]

#: Version of all files together; raised when a program that reads the older form would
#: misread the newer one. Files without it are of before it was written, and of version 1.
SCHEMA = 1

#: The key that holds it.
VERSION_KEY = "schema"


def versioned(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, and the version of their form.

    Example:
        >>> versioned({"torch": "2.13"})
        {'schema': 1, 'torch': '2.13'}
    """
    return {VERSION_KEY: SCHEMA, **facts}


def unversioned(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds but for the version of its form.

    Example:
        >>> unversioned({"schema": 1, "torch": "2.13"})
        {'torch': '2.13'}
    """
    return {name: value for name, value in found.items() if name != VERSION_KEY}
