"""The command line, one file a verb: a function, its flags, its printed result.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once. Only
the flags of ``reproduce`` are those of the papers, which are loaded with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from elision.cli.bench import bench
from elision.cli.compare import compare
from elision.cli.data import data
from elision.cli.shapes import shapes
from elision.cli.simulate import simulate
from elision.cli.size import size
from elision.cli.study import study
from elision.cli.timeline import timeline
from elision.cli.trace import trace
from elision.cli.train import train

__all__ = ["COMMANDS", "Loaded"]


class Loaded(NamedTuple):
    """A group of commands that is imported when it is used.

    Attributes:
        path: ``module:attribute`` of the group's application.
        name: of the group.
        help: one line for the list of commands.

    Example:
        >>> Loaded("elision.cli.reproduce:reproduce", "reproduce", "Papers.").name
        'reproduce'
    """

    path: str
    name: str
    help: str


#: In the order of ``--help``.
COMMANDS: tuple[Callable[..., Any] | Loaded, ...] = (
    study,
    train,
    trace,
    simulate,
    timeline,
    size,
    shapes,
    compare,
    bench,
    Loaded(
        "elision.cli.reproduce:reproduce",
        "reproduce",
        "Write a published table beside our own numbers.",
    ),
    data,
)
