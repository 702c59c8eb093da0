"""Stationarity of training: at rest, or still moving."""

from dataclasses import replace
from typing import Any

import numpy as np

from elision.report.style import Mark, drawing, marks_of, svg
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section, findings_of

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
    found = findings_of(outcome, "stationarity")
    if not found:
        return None
    verdicts = [
        {"recipe": n, "verdict": f["verdict"], "because": "; ".join(f["reasons"])}
        for n, f in found.items()
    ]
    moved = {n: f for n, f in found.items() if f["verdict"] != "diverged"}
    figures = [_figures(name, finding) for name, finding in moved.items()]
    losses = {name: finding["losses"] for name, finding in moved.items()}
    sheets = (
        rows_as_html(verdicts, words=("verdict", "because")),
        *((rows_as_html(figures), _losses(losses, _marks(outcome))) if moved else ()),
    )
    return Section("Has training come to rest?", "measured here", _NOTE, sheets)


def _figures(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Figures behind the verdict; noise and sharpness are those of the last look."""
    mean, error = found["gradient_squared"]
    last = found["looks"][-1]
    row = {
        "recipe": name,
        "learning rate": found["rate"],
        "‖∇F‖²": f"{mean:.2g} ± {error:.1g}",
        "noise scale": last["noise_scale"],
        "rate x sharpness": last["rate_sharpness"],
        "step / weights": found["step_ratio"],
        "net / path": found["displacement_ratio"],
    }
    row |= {f"p, {what}": p for what, p in found["p_values"].items()}
    return {column: "" if value is None else value for column, value in row.items()}


def _marks(outcome: StudyOutcome) -> dict[str, Mark]:
    """Of the recipes, and of each with a probe's name where there are several probes."""
    marks = marks_of(outcome.config.recipes)
    return marks | {
        name: marks[o.spec]
        for o in outcome.outcomes
        for name in findings_of(replace(outcome, outcomes=[o]), "stationarity")
    }


def _losses(losses: dict[str, list[float]], marks: dict[str, Mark]) -> str:
    """Loss of every step, averaged over a twentieth of the window."""
    with drawing(9.2, 2.8) as figure:
        axes = figure.subplots()
        for name, values in losses.items():
            width = max(1, len(values) // 20)
            mean = np.convolve(values, np.ones(width) / width, mode="valid")
            axes.plot(
                np.arange(width, len(values) + 1),
                mean,
                color=marks[name].colour,
                label=name,
            )
        axes.set(title="Training loss while watched, moving average", xlabel="step")
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
        return svg(figure)
