"""Cycles of SCNN over those of ANT, for machines with equal parameters."""

import math

from elision.accelerators.simulate import total
from elision.products import Product
from elision.report.table import rows_as_html
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["ant_over_scnn", "ratios"]

_NOTE = (
    "Ratio of cycles (last column: of energy on chip), SCNN in its plane-pair mapping over ANT "
    "with the same start-up. Published, not measured here: 3.71x fewer cycles and 4.40x "
    "less energy, geometric means at 90&nbsp;% sparsity (Lew et al., ISCA 2022, "
    "abstract). The abstract does not state the array size, the scan window or how "
    "start-up is charged; these are this project's own parameters, and the ratio depends "
    "on them: it is shown for each start-up cost that was asked for."
)


def ant_over_scnn(outcome: StudyOutcome) -> Section | None:
    """A row for every recipe and pair of machines."""
    rows = [
        {"recipe": o.spec, "machines": label}
        | {key: f"{ratio:.2f}x" for key, ratio in found.items()}
        for o in outcome.outcomes
        for label, found in ratios(o).items()
    ]
    if not rows:
        return None
    table = rows_as_html(rows, words=("machines",))
    return Section("ANT over SCNN", "simulated", _NOTE, (table,))


def ratios(o: RecipeOutcome) -> dict[str, dict[str, float]]:
    """Ratios by pair of machines: of cycles by product and in total, and of energy."""
    sums = total(o.costs)
    found = {}
    for name, ant in sums.items():
        scnn = sums.get(name.replace("ant", "scnn", 1))
        if not name.startswith("ant") or scnn is None:
            continue
        parameters = name.removeprefix("ant").strip(":()")
        label = "ANT over SCNN" + (f" ({parameters})" if parameters else "")
        found[label] = {
            key: scnn[key].cycles / ant[key].cycles if ant[key].cycles else math.nan
            for key in (*(p.value for p in Product), "total")
            if key in ant
        }
        found[label]["energy on chip"] = (
            scnn["total"].energy_on_chip_pj / ant["total"].energy_on_chip_pj
        )
    return found
