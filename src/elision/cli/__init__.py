"""The command line, one file a verb: a function, its flags, its printed result.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from collections.abc import Callable
from typing import Any

from cyclopts import App

from elision.cli.bench import bench
from elision.cli.compare import compare
from elision.cli.data import data
from elision.cli.doctor import doctor
from elision.cli.export import export
from elision.cli.faults import faults
from elision.cli.federate import federate
from elision.cli.map import map
from elision.cli.memory import memory
from elision.cli.pipeline import pipeline
from elision.cli.report import report
from elision.cli.reproduce import reproduce
from elision.cli.scale import scale
from elision.cli.search import search
from elision.cli.sensitivity import sensitivity
from elision.cli.serve import serve
from elision.cli.shapes import shapes
from elision.cli.simulate import simulate
from elision.cli.size import size
from elision.cli.study import study
from elision.cli.timeline import timeline
from elision.cli.trace import trace
from elision.cli.train import train

__all__ = ["COMMANDS"]


#: In the order of ``--help``.
COMMANDS: tuple[Callable[..., Any] | App, ...] = (
    study,
    train,
    federate,
    trace,
    simulate,
    timeline,
    size,
    map,
    pipeline,
    scale,
    shapes,
    compare,
    report,
    serve,
    sensitivity,
    search,
    faults,
    export,
    memory,
    bench,
    doctor,
    reproduce,
    data,
)
