"""One layer of one recorded step as a schedule of the systolic arrays."""

from elision.accelerators import ACCELERATORS
from elision.accelerators.design.schedule import Slice, schedule
from elision.accelerators.systolic.array import SystolicArray
from elision.common.printable import escaped
from elision.common.specs import build
from elision.products import LayerProduct, Product
from elision.report.timeline import timeline_svg
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["timeline"]

#: Folds of a product that are drawn singly.
FOLDS = 8


def timeline(outcome: StudyOutcome) -> Section | None:
    """The layer with the most work, on every systolic array of the study."""
    built = {
        spec: build("accelerator", spec, ACCELERATORS)
        for spec in outcome.config.accelerators
    }
    arrays = {
        spec: machine
        for spec, machine in built.items()
        if isinstance(machine, SystolicArray)
    }
    recipe = outcome.trace.of_recipe(outcome.config.recipes[0])
    products = _largest_layer(list(recipe))
    if not arrays or not products:
        return None
    schedules: dict[str, list[Slice]] = {}
    for spec, machine in arrays.items():
        slices = schedule(machine, products, FOLDS)
        if slices not in schedules.values():  # gating, for one, changes no cycle
            schedules[spec] = slices
    note = (
        f"When the ports of an array are busy during the three products of "
        f"<code>{escaped(products[0].name)}</code>, the layer with the most "
        "multiply-accumulates, all arrays on one scale of cycles; the first "
        f"{FOLDS} folds of a product singly. "
        "<code>elision timeline</code> writes whole steps for Perfetto."
    )
    return Section("Timeline", "simulated", note, (timeline_svg(schedules),))


def _largest_layer(products: list[LayerProduct]) -> list[LayerProduct]:
    """The products of the layer with the most work that has an input gradient."""
    gradients = [p for p in products if p.kind is Product.INPUT_GRAD]
    if not gradients:
        return []
    most = max(gradients, key=lambda p: p.dense_macs)
    return [p for p in products if (p.name, p.step) == (most.name, most.step)]
