"""The sections of a study's report, one file each.

A section is a function from a study's outcome to a :class:`Section`, or to None where
the study has nothing to show for it.
"""

from collections.abc import Callable

from elision.report.sections.accuracy import accuracy
from elision.report.sections.ant_over_scnn import ant_over_scnn
from elision.report.sections.base import Section
from elision.report.sections.costs import costs
from elision.report.sections.density import density
from elision.report.sections.layers import layers
from elision.report.sections.memory import memory
from elision.report.sections.multiplier_array import multiplier_array
from elision.report.sections.recipes import recipes
from elision.report.sections.redundancy import redundancy
from elision.report.sections.seconds import seconds
from elision.report.sections.speed import speed
from elision.report.sections.stationarity import stationarity
from elision.report.sections.timeline import timeline
from elision.report.sections.work import work
from elision.report.sections.zeros import zeros
from elision.study.outcome import StudyOutcome

__all__ = ["SECTIONS", "Section"]

#: In the order of the page.
SECTIONS: tuple[Callable[[StudyOutcome], Section | None], ...] = (
    accuracy,
    work,
    density,
    redundancy,
    costs,
    layers,
    ant_over_scnn,
    multiplier_array,
    zeros,
    timeline,
    seconds,
    speed,
    memory,
    stationarity,
    recipes,
)
