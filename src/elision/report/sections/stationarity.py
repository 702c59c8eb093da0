"""Whether training came to rest, or would go on moving."""

from typing import Any

import numpy as np

from elision.report.sections.base import Section
from elision.report.style import PALETTE, drawing, svg
from elision.report.table import rows_as_html
from elision.specs import parse
from elision.study.outcome import StudyOutcome

__all__ = ["stationarity"]

_NOTE = (
    "Each trained model went on at a constant learning rate. <b>Still moving</b>: the "
    "loss slopes, or its distribution or that of the weight norm differs between the "
    "halves of the window. <b>Invariant regime</b>: neither does, yet the gradient is "
    "not zero. <b>Stationary point</b>: no gradient is found either. ‖∇F‖² is the "
    "unbiased estimate from two independent batches, ± its standard error; below zero "
    "means that noise hides it. Sharpness is that of the dense weights' directions."
)


def stationarity(outcome: StudyOutcome) -> Section | None:
    """A verdict a recipe, the figures behind it, and the loss while watched."""
    found = {
        f"{o.spec}, {probe}" if len(o.findings) > 1 else o.spec: finding
        for o in outcome.outcomes
        for probe, finding in o.findings.items()
        if parse(probe)[0] == "stationarity"
    }
    if not found:
        return None
    rows = [_row(name, finding) for name, finding in found.items()]
    losses = {name: finding["losses"] for name, finding in found.items()}
    sheets = (rows_as_html(rows, words=("verdict", "because")), _figure(losses))
    return Section("Has training come to rest?", "measured here", _NOTE, sheets)


def _row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    mean, error = found["gradient_squared"]
    last = found["looks"][-1]
    return {
        "recipe": name,
        "verdict": found["verdict"],
        "because": "; ".join(found["reasons"]),
        "rate": found["rate"],
        "‖∇F‖²": f"{mean:.2g} ± {error:.1g}",
        "noise scale": "" if last["noise_scale"] is None else last["noise_scale"],
        "rate x sharpness": ""
        if last["rate_sharpness"] is None
        else last["rate_sharpness"],
        "step / norm": found["step_ratio"],
        "net / path": found["displacement_ratio"],
    }


def _figure(losses: dict[str, list[float]]) -> str:
    """Loss of every step, averaged over a twentieth of the window."""
    with drawing(9.2, 2.8) as figure:
        axes = figure.subplots()
        for colour, (name, values) in zip(PALETTE * 4, losses.items(), strict=False):
            width = max(1, len(values) // 20)
            mean = np.convolve(values, np.ones(width) / width, mode="valid")
            axes.plot(np.arange(width, len(values) + 1), mean, color=colour, label=name)
        axes.set(title="Training loss while watched, moving average", xlabel="step")
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
        return svg(figure)
