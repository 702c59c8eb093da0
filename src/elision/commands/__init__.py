"""The command line, one file a verb: a function, its flags, what it prints.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from collections.abc import Callable
from typing import Any

from cyclopts import App

from elision.commands.bench import bench
from elision.commands.compare import compare
from elision.commands.data import data
from elision.commands.reproduce import reproduce
from elision.commands.shapes import shapes
from elision.commands.simulate import simulate
from elision.commands.size import size
from elision.commands.study import study
from elision.commands.timeline import timeline
from elision.commands.trace import trace
from elision.commands.train import train

__all__ = ["COMMANDS"]

#: In the order of ``--help``. Each is a function, or an application with commands of its own.
COMMANDS: tuple[Callable[..., Any] | App, ...] = (
    study,
    train,
    trace,
    simulate,
    timeline,
    size,
    shapes,
    compare,
    bench,
    reproduce,
    data,
)
