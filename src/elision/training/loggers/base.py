"""Protocol of a logger, and what it is told of a run before its first value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Logger", "Told"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a logger is told before the first value of a run.

    Attributes:
        name: of the run, from the general to the particular, such as
            ``("study-digits-cnn", "swat-sparsity-0.9", "seed-0")``.
        folder: where a logger keeps its files if it was given no other place.
        config: plain values, which stay those of the run.
        first_step: step of the first value that follows; what an interrupted process
            logged from there on is not valid.
        kept: what :meth:`Logger.open` gave to an earlier process of the run.

    Example:
        >>> Told(name=("mine", "dense"), folder=Path("logs"), config={}).first_step
        0
    """

    name: tuple[str, ...]
    folder: Path
    config: Mapping[str, Any]
    first_step: int = 0
    kept: str | None = None


class Logger(Protocol):
    """Somebody who is told of a run; its errors end its work, never the run's.

    Example:
        >>> class Printed:
        ...     def open(self, told):
        ...         return None
        ...     def scalars(self, values, step):
        ...         print(step, values)
        ...     def final(self, values, step):
        ...         self.scalars(values, step)
        ...     def flush(self):
        ...         pass
        ...     def close(self, finished):
        ...         pass
        >>> logger: Logger = Printed()
        >>> logger.scalars({"loss": 0.5}, 1)
        1 {'loss': 0.5}
    """

    def open(self, told: Told) -> str | None:
        """Begin, or go on with, a run; the name by which the library finds it again."""
        ...

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values of a step, which follows those of all earlier calls."""
        ...

    def final(self, values: Mapping[str, float], step: int) -> None:
        """What the run came to, after its last step."""
        ...

    def flush(self) -> None:
        """Write what is not written; an epoch is over."""
        ...

    def close(self, finished: bool) -> None:
        """No value follows from this process; whether it did all that it began."""
        ...
