"""The sections of a study's report, one file each.

A section is a function from a study's outcome to a :class:`Section`, or to None where
the study has nothing to show for it.
"""

from collections.abc import Callable

from elision.study.outcome import StudyOutcome
from elision.study.page.sections.accuracy import accuracy
from elision.study.page.sections.ant_over_scnn import ant_over_scnn
from elision.study.page.sections.base import Section
from elision.study.page.sections.continuation import continuation
from elision.study.page.sections.costs import costs
from elision.study.page.sections.density import density
from elision.study.page.sections.energy import energy
from elision.study.page.sections.layers import layers
from elision.study.page.sections.memory import memory
from elision.study.page.sections.multiplier_array import multiplier_array
from elision.study.page.sections.pipeline import pipeline
from elision.study.page.sections.recipes import recipes
from elision.study.page.sections.redundancy import redundancy
from elision.study.page.sections.roofline import roofline
from elision.study.page.sections.seconds import seconds
from elision.study.page.sections.speed import speed
from elision.study.page.sections.stationarity import stationarity
from elision.study.page.sections.step_energy import step_energy
from elision.study.page.sections.teacher import teacher
from elision.study.page.sections.timeline import timeline
from elision.study.page.sections.translation import translation
from elision.study.page.sections.work import work
from elision.study.page.sections.zeros import zeros

__all__ = ["SECTIONS", "Section"]

#: In the order of the page.
SECTIONS: tuple[Callable[[StudyOutcome], Section | None], ...] = (
    accuracy,
    teacher,
    translation,
    continuation,
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
    energy,
    step_energy,
    roofline,
    memory,
    pipeline,
    stationarity,
    recipes,
)
