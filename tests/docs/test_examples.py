"""Every public class shows its use: an example in its docstring, which the tests run."""

import importlib
import inspect
from pathlib import Path

import pytest

import elision

PACKAGE = Path(elision.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def public_classes(room: str) -> dict[str, type]:
    """Classes that the room or a folder in it exports, by qualified name; no errors."""
    found: dict[str, type] = {}
    for path in sorted((PACKAGE / room).rglob("__init__.py")):
        name = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", None) or [
            n for n in vars(module) if not n.startswith("_")
        ]
        for value in (getattr(module, n) for n in exported):
            ours = inspect.isclass(value) and value.__module__.startswith(
                f"elision.{room}"
            )
            if ours and not issubclass(value, BaseException):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_class_has_an_example(room: str) -> None:
    bare = [
        name
        for name, cls in public_classes(room).items()
        if ">>> " not in (cls.__doc__ or "").partition("Example:")[2]
    ]
    assert bare == []
