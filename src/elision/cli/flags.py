"""Types of flags that several commands share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CoercionError, Parameter, Token

__all__ = [
    "Files",
    "Integer",
    "Integers",
    "Loggers",
    "Names",
    "Specs",
    "number_or_list",
    "refuse_ignored",
]


def _whole(hint: Any, tokens: Sequence[Token]) -> int:
    """The integer of a flag; nothing is rounded, and ``2.0`` is none, as in specs."""
    del hint
    (token,) = tokens
    try:
        return int(token.value)
    except ValueError:
        raise CoercionError(token=token, target_type=int) from None


Integer = Annotated[int, Parameter(converter=_whole)]

#: One or more values after one flag or several.
_SEVERAL = Parameter(consume_multiple=1, negative="")

#: ``NAME``, ``NAME:parameter=value,...`` or ``NAME(value, parameter=value, ...)``
Specs = Annotated[tuple[str, ...], _SEVERAL]
Names = Annotated[tuple[str, ...], _SEVERAL]
Files = Annotated[tuple[Path, ...], _SEVERAL]
#: Loggers. torchrun takes ``--log``, even behind the name of its program, for a beginning of
#: its own flags and refuses it; hence the other name.
Loggers = Annotated[Names, Parameter(name=["--log", "--logger"])]
Integers = Annotated[tuple[Integer, ...], _SEVERAL]


def number_or_list(values: tuple[int, ...]) -> int | tuple[int, ...] | None:
    """One value is a number of things, several are the things; none is None.

    Example:
        >>> number_or_list((3,)), number_or_list((0, 1, 7))
        (3, (0, 1, 7))
    """
    if len(values) == 1:
        return values[0]
    return values or None


def refuse_ignored(why: str, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError if one of the arguments is given, which would be ignored.

    Args:
        why: nothing reads them.
        arguments: by flag; None: not given.

    Example:
        >>> refuse_ignored("run is trained", {"epochs": 3, "data": None})
        Traceback (most recent call last):
        ValueError: --epochs 3 would be ignored: run is trained
    """
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"--{name} {value} would be ignored: {why}")
