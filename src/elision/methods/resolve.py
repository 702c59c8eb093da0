"""Recipes by the text that a person writes: a name, a file, or an object of a module.

============================  ===================================================
``swat:sparsity=0.9``         a method by name, with parameters
``swat:sparsity=0.9+fp8``     two of them, one after the other
``mine.toml``, ``mine.json``  a recipe's file
``package.module:NAME``       a recipe in an importable module
============================  ===================================================
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from elision.common import objects, specs
from elision.common.names import lookup
from elision.common.toml import from_toml
from elision.layers.recipe import Recipe
from elision.methods.base import Method
from elision.methods.composed import Composed

__all__ = ["from_dict", "is_external", "parts_of", "resolve"]

Methods = Mapping[str, Callable[..., Method]]

_READERS: dict[str, Callable[[str], Any]] = {
    ".toml": from_toml,
    ".json": json.loads,
}


def parts_of(spec: str) -> list[str]:
    """The specs that plus signs join, outside parentheses and quotations.

    Example:
        >>> parts_of("swat:sparsity=0.9 + fp8(history=16)")
        ['swat:sparsity=0.9', 'fp8(history=16)']
    """
    whole = "+" not in spec or Path(spec).is_file()
    return [spec] if whole else specs.joined(spec)


def is_external(spec: str, methods: Methods) -> bool:
    """True if a spec, or a part of it, names a file or a module's object."""
    return any(_is_external(part, methods) for part in parts_of(spec))


def _is_external(spec: str, methods: Methods) -> bool:
    if Path(spec).suffix in _READERS and "=" not in spec:
        return True
    found = objects.split(spec)
    return found is not None and found[0] not in methods


def resolve(
    spec: str, methods: Methods, *, steps: int | None = None, **more: Any
) -> Recipe:
    """The recipe of a spec; :func:`elision.methods.make_recipe` documents it."""
    parts = parts_of(spec)
    if len(parts) > 1:
        if more:
            raise ValueError(
                f"recipe {spec!r}: write {', '.join(more)} with the part that it is of"
            )
        return Composed(tuple(resolve(part, methods, steps=steps) for part in parts))
    if not is_external(spec, methods):
        method = specs.build("recipe", spec, methods, **more)
        if steps is None:
            return method
        return method.fitted(steps, (*specs.resolve("recipe", spec, methods)[1], *more))
    named = objects.split(spec)
    recipe = _imported(*named) if named else _read(Path(spec), methods)
    return replace(recipe, **more) if more else recipe


def from_dict(values: Any, methods: Methods) -> Recipe:
    """The recipe of plain values; :func:`elision.methods.recipe_from_dict`."""
    if isinstance(values, Mapping) and "parts" in values:
        return Composed.from_dict(values)
    if not isinstance(values, Mapping) or "method" not in values:
        return Recipe.from_dict(values)
    # Several names may build one class; the class and all its parameters are written.
    classes = {kind.key: kind for kind in map(_class_of, methods.values())}
    return lookup("method", values["method"], classes).from_dict(values)


def _class_of(make: Callable[..., Method]) -> type[Method]:
    return getattr(make, "func", make)  # a partial's function  # pyright: ignore[reportReturnType]


def _read(path: Path, methods: Methods) -> Recipe:
    try:
        return from_dict(
            _READERS[path.suffix](path.read_text(encoding="utf-8")), methods
        )
    except (
        AttributeError,
        LookupError,
        OSError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:  # a value of another kind where a table, a list or a number is
        raise ValueError(f"recipe file {path}: {error}") from error


def _imported(module: str, name: str) -> Recipe:
    """An object of a module; modules of the current folder are found, too."""
    spec = f"{module}:{name}"
    found = objects.imported(f"recipe {spec!r}", module)
    recipes = {n: v for n, v in vars(found).items() if isinstance(v, Recipe)}
    if name in vars(found) and name not in recipes:
        kind = type(vars(found)[name]).__name__
        raise ValueError(f"recipe {spec!r}: must be a Recipe, it is a {kind}")
    return lookup(f"recipe of {module}", name, recipes)
