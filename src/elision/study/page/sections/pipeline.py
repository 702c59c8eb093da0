"""The trained network over several processors: schedules from its measured products."""

import math
from typing import Any

from elision.common.printable import escaped
from elision.products import Product
from elision.report.pipeline_figure import pipeline_svg
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section, findings_of
from elision.study.probes.pipeline import plans_of
from elision.training.pipeline.figures import figures, shown
from elision.training.pipeline.plan import Plan
from elision.training.pipeline.stability import stable_rate

__all__ = ["pipeline"]

MIB = 2**20

_NOTE = (
    "The three products of every layer were timed here on one core, on the plain layers at "
    "the trained weights: forward <b>F</b>, input gradient <b>dX</b>, weight gradient "
    "<b>dW</b>. The schedules are computed from these times, as if what processors send "
    "took no time. <b>Bubble</b>: share of the processors' time that is idle when "
    "steps follow one another, uneven stages included. <b>Kept</b>: activations and weight "
    "versions (<b>weights</b>) of a processor, above of the one with the most. "
    "<b>Delay</b>: updates between the weights that a gradient was computed for and those "
    "that it changes. <b>Stable rate</b>: of the workload's SGD along the sharpest "
    "direction of the stage's weights, the other stages held, at this delay; above it "
    "training must fail, below it need not succeed. "
    "<b>Own / stable</b>: the rate that the workload starts with over it."
)


def pipeline(outcome: StudyOutcome) -> Section | None:
    """A row a schedule, and for each recipe stage x time and the stages."""
    found = findings_of(outcome, "pipeline")
    if not found:
        return None
    rows, refused, details = [], [], []
    for recipe, finding in found.items():
        if "refused" in finding:
            refused.append({"recipe": recipe, "why": finding["refused"]})
            continue
        plans: dict[str, Plan] = {}
        for name, made in plans_of(finding).items():
            if isinstance(made, str):
                refused.append({"recipe": recipe, "schedule": name, "why": made})
            else:
                plans[name] = made
        rows += [{"recipe": recipe, **_row(made)} for made in plans.values()]
        if plans:
            details.append(_details(recipe, finding, plans, first=not details))
    tables = (rows_as_html(rows), rows_as_html(refused, words=("why",)))
    return Section(
        "Over several processors",
        "simulated",
        _NOTE,
        (*filter(None, tables), *details),
    )


def _row(made: Plan) -> dict[str, str]:
    """The columns that fit a page; the figure has the makespan."""
    row = shown(figures(made))
    return {
        column: value
        for column, value in row.items()
        if column != "stages" and not column.startswith("makespan")
    }


def _details(
    recipe: str, found: dict[str, Any], plans: dict[str, Plan], *, first: bool
) -> str:
    """Stage x time of every schedule, and a row a stage."""
    title = escaped(
        f"{recipe}: {found['processors']} processors, {found['microbatches']} "
        f"micro-batches of {found['batch']}"
    )
    stages = [
        row
        for name, made in plans.items()
        for row in _stages(made, found, found["sharpness"].get(name))
    ]
    figure = pipeline_svg([made.panel() for made in plans.values()])
    return (
        f"<details{' open' if first else ''}><summary>{title}</summary>"
        f"{figure}{rows_as_html(stages, words=('layers',))}</details>"
    )


def _stages(
    made: Plan, found: dict[str, Any], sharpness: list[float] | None
) -> list[dict[str, Any]]:
    """A row a stage that micro-batches pass, and one for each other processor."""
    rows = []
    for stage, pieces in enumerate(made.partition.stages):
        passed = stage < made.pipeline.stages
        processor = made.pipeline.lanes[0][stage] if passed else stage
        seconds = {
            product: sum(
                made.costs[p.layer].of(product) * p.share
                for p in pieces
                if p.product is product
            )
            for product in Product
        }
        layers = made.partition.layers[stage]
        row = {
            "schedule": made.schedule.name,
            "stage": f"{stage} on {processor}" if passed else f"beside, on {processor}",
            "layers": ", ".join(made.costs[n].name for n in layers),
            "F, dX, dW, ms": ", ".join(f"{1e3 * s:.3g}" for s in seconds.values()),
            "kept, MiB": f"{made.peak_bytes[processor] / MIB:.3g}",
        }
        if passed:
            row |= {
                "activations": made.peak_activations[stage],
                "weights": made.weight_versions[stage],
                "delay": made.delays[stage],
            }
            if sharpness is not None:
                row |= _rate(sharpness[stage], made.delays[stage], found)
        rows.append(row)
    return rows


def _rate(sharpness: float, delay: int, found: dict[str, Any]) -> dict[str, str]:
    """Largest stable rate of a stage, and the workload's over it."""
    limit = math.inf
    if sharpness > 0:
        limit = stable_rate(
            sharpness, delay, found["momentum"], nesterov=found["nesterov"]
        )
    return {
        "sharpness": f"{sharpness:.3g}",
        "stable rate": f"{limit:.2g}",
        "own / stable": f"{found['learning_rate'] / limit:.2g}",
    }
