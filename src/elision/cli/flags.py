"""Types of flags that several commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["Files", "Integers", "Names", "Shares", "Specs"]

#: One or more values after one flag or several.
_SEVERAL = Parameter(consume_multiple=True, negative="")

#: Each value is ``NAME`` or ``NAME:parameter=value,...``
Specs = Annotated[tuple[str, ...], _SEVERAL]
Names = Annotated[tuple[str, ...], _SEVERAL]
Files = Annotated[tuple[Path, ...], _SEVERAL]
Integers = Annotated[tuple[int, ...], _SEVERAL]
Shares = Annotated[tuple[float, ...], _SEVERAL]
