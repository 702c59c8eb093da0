"""The multipliers of SCNN and ANT on a small convolution, step by step."""

import numpy as np

from elision.common.specs import parse
from elision.report.multiplier_array import multiplier_array_svgs
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["multiplier_array"]

#: The example of T. Aamodt's slides "Fast Learning on Slow Hardware" (FastPath 2022).
IMAGE = np.array([[1, 0, 0], [0, -1, 2], [0, 0, 3]])
KERNEL = np.array([[2, -3], [0, 0]])

_NOTE = (
    "An example, not this study's operands: a 3x3 image meets a 2x2 kernel in an array "
    "of 2x2 multipliers. The image has four non-zeros and the kernel two, so there are "
    "eight products; four belong to an output, four are redundant. SCNN multiplies all "
    "eight. ANT computes which kernel rows and columns the two image values of a step can "
    "reach and skips the rest (crossed out): two of the four redundant products here; the "
    "others share a step with a product that is needed."
)


def multiplier_array(outcome: StudyOutcome) -> Section | None:
    """Steps of both machines, if a study has one of them."""
    names = {parse(spec).name for spec in outcome.config.accelerators}
    if not names & {"ant", "scnn"}:
        return None
    sheets = tuple(
        _sheet(label, multiplier_array_svgs(IMAGE, KERNEL, 2, anticipates))
        for label, anticipates in (
            ("SCNN multiplies every non-zero with every other", False),
            ("ANT anticipates what is redundant", True),
        )
    )
    return Section("The multiplier array, step by step", "example", _NOTE, sheets)


def _sheet(label: str, drawings: list[str]) -> str:
    steps = "".join(f'<div style="flex:1 1 20rem">{svg}</div>' for svg in drawings)
    return (
        f"<details><summary>{label}</summary>"
        f'<div style="display:flex;flex-wrap:wrap;gap:.8rem">{steps}</div></details>'
    )
