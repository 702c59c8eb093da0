"""Types of flags that several commands share."""

from typing import Annotated

from cyclopts import Parameter

__all__ = ["Specs"]

#: One or more specs, ``NAME`` or ``NAME:parameter=value,...``, after one flag or several.
Specs = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]
