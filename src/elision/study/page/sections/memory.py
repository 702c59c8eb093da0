"""Saved activations of the trained recipes under policies that keep them smaller."""

import statistics
from typing import Any

from elision.common.printable import escaped
from elision.common.specs import parse
from elision.memory.measures.measure import MemoryRow
from elision.memory.measures.noise import HIDDEN, NoiseShare
from elision.report.noise_figure import noise_by_layer
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["memory"]

MIB = 2**20

_NOTE = (
    "A step of each trained recipe with its saved tensors under a policy, against plain "
    "autograd in the same run. <b>Tensors</b>: what is kept between forward and "
    "backward, by the ledger; <b>ledger</b>: over what the allocator says of it. "
    "<b>Peak</b>: of a whole step, by the allocator's own account; gradients, results "
    "and temporaries are in it, so it falls by less. <b>Time</b>: of the processor. "
    "<b>Gradient error</b>: of the weights, relative, through the whole backward pass; "
    "<b>own</b>: of a layer's own saved input alone, the gradient that arrives being "
    "exact; median and largest of the layers. <b>Codec noise</b>: squared error that the "
    "policy adds to a weight gradient, over the variance of that gradient from batch to "
    "batch; up to 0.1 it counts as <b>hidden</b> (the rule of GACT, ICML 2022)."
)


def memory(outcome: StudyOutcome) -> Section | None:
    """Totals, noise per layer and the ledger of every policy of the study's probes."""
    totals, sheets = [], []
    for o in outcome.outcomes:
        asked = [
            found for spec, found in o.findings.items() if parse(spec).name == "memory"
        ]
        totals += [_totals(o.spec, found) for found in asked]
        sheets.append(_noise_figure(o.spec, asked))
        sheets += [_details(o.spec, found) for found in asked]
    if not totals:
        return None
    table = rows_as_html(totals, words=("policy",))
    return Section(
        "Saved activations", "measured here", _NOTE, (table, *filter(None, sheets))
    )


def _shares(found: dict[str, Any]) -> list[NoiseShare]:
    """Of the weights, not of biases and norms."""
    shares = (NoiseShare(**share) for share in found["noise"])
    return [s for s in shares if s.parameter in found["row"]["gradient_errors"]]


def _totals(recipe: str, found: dict[str, Any]) -> dict[str, Any]:
    row, shares = MemoryRow(**found["row"]), _shares(found)
    hidden = sum(share.hidden for share in shares)
    return {
        "recipe": recipe,
        "policy": row.policy,
        "tensors MiB": f"{row.logical_bytes / MIB:.2f} → {row.stored_bytes / MIB:.2f}",
        "ratio": f"{row.tensor_ratio:.2f}x",
        "peak MiB": f"{row.plain_peak_bytes / MIB:.1f} → {row.peak_bytes / MIB:.1f}",
        "peak ratio": f"{row.peak_ratio:.2f}x",
        "ledger": f"{row.ledger_over_measured:.3f}",
        "time": f"{row.processor_time_ratio:.2f}x",
        "gradient error": _median_and_largest(row.gradient_errors),
        "own": _median_and_largest(row.own_errors),
        "hidden": f"{hidden} of {len(shares)}",
    }


def _median_and_largest(errors: dict[str, float]) -> str:
    values = errors.values()
    return f"{100 * statistics.median(values):.2f}, {100 * max(values):.2f} %"


def _noise_figure(recipe: str, asked: list[dict[str, Any]]) -> str:
    """One figure of all policies that add noise; empty without any."""
    noisy = {
        found["policy"]: [share.share for share in _shares(found)]
        for found in asked
        if any(share.codec_variance for share in _shares(found))
    }
    if not noisy:
        return ""
    layers = [s.parameter.removesuffix(".weight") for s in _shares(asked[0])]
    title = f"Codec noise over batch noise: {recipe}"
    return noise_by_layer(layers, noisy, HIDDEN, title)


def _details(recipe: str, found: dict[str, Any]) -> str:
    row = MemoryRow(**found["row"])
    layers = [
        {
            "parameter": share.parameter,
            "gradient error": f"{100 * row.gradient_errors[share.parameter]:.3f} %",
            "own": f"{100 * row.own_errors[share.parameter]:.3f} %",
            "batch variance": f"{share.batch_variance:.3g}",
            "codec variance": f"{share.codec_variance:.3g}",
            "codec over batch": f"{share.share:.3g}",
            "hidden": "yes" if share.hidden else "no",
        }
        for share in _shares(found)
    ]
    ledger = [
        {
            "module": entry["module"] or "the model",
            "role": entry["role"],
            "logical KiB": f"{entry['logical_bytes'] / 1024:,.1f}",
            "stored KiB": f"{entry['stored_bytes'] / 1024:,.1f}",
            "codec": entry["codec"],
            "declared": entry["declared"],
        }
        for entry in found["ledger"]
    ]
    notes = "".join(f'<p class="note">{escaped(note)}</p>' for note in found["notes"])
    title = escaped(f"{recipe}, {row.policy}: layers and ledger")
    return (
        f"<details><summary>{title}</summary>{notes}"
        f"{rows_as_html(layers)}"
        f"{rows_as_html(ledger, words=('role', 'codec', 'declared'))}</details>"
    )
