"""The page of a sensitivity: sections from what was measured, figures inline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elision.common.printable import escaped
from elision.precision import Perturbation, Sensitivity, Sufficiency, TopClasses
from elision.precision.arithmetic import bits_of
from elision.precision.sufficient import COLUMNS
from elision.report.photo_rows import Guess, photo_rows
from elision.report.sensitivity_figures import (
    bits_by_layer,
    format_map,
    noise_dots,
    predicted_against_measured,
)
from elision.report.table import rows_as_html
from elision.study.page.sections.base import Section
from elision.study.page.subject import SubjectPage

__all__ = ["Page"]

#: Operands in words.
_WORDS = {"input": "inputs", "weight": "weights", "grad_output": "gradients"}


class Page(SubjectPage):
    """The page of a sensitivity; see :class:`~elision.study.page.subject.SubjectPage`.

    Example:
        >>> page = Page("a network", "A network.")
        >>> "<h1>" in page.html()
        True
    """

    template = "sensitivity.html.j2"

    def add_perturbation(
        self, found: Perturbation, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Table of arithmetics, noise of each layer alone, error of all together.

        Args:
            found: what was measured.
            rows: the table of arithmetics, if it has more columns.
        """
        table = [dict(row) for row in (found.rows() if rows is None else rows)]
        layers = list(dict.fromkeys(row.layer for row in found.layers))
        names = [row.arithmetic for row in found.formats[1:]]

        def values(attribute: str) -> dict[str, list[float]]:
            return {
                name: [
                    getattr(row, attribute)
                    for row in found.layers
                    if row.arithmetic == name
                ]
                for name in names
            }

        alone = noise_dots(
            layers,
            values("noise"),
            "Each layer alone: noise to signal at its output, both operands rounded",
        )
        together = noise_dots(
            layers,
            values("error"),
            "All layers together: relative error of each output",
        )
        self.figures |= {"noise-by-layer": alone, "error-by-layer": together}
        self.sections.append(
            Section(
                "All layers in one arithmetic",
                "measured here",
                "<b>agree</b>: first class as in float32. <b>safe</b>: must agree whatever the "
                "error's direction, since it is below half the margin of the first two "
                "scores. <b>score error</b> often lies between the root of the sum of "
                "squares of the layers' weight noise, which independent errors give, and "
                "their sum; rounding of inputs is in the score error alone.",
                (rows_as_html(table), alone, together),
            )
        )

    def add_sensitivity(self, found: Sensitivity) -> None:
        """Scatter of predicted and measured changes, with rank correlations."""
        panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        titles = {}
        for row in found.correlations():
            operand = row["operand"]
            series: dict[str, tuple[list[float], list[float]]] = {}
            for each in found.of(operand):
                name = f"{each.format} bits" if each.format.isdecimal() else each.format
                predicted, measured = series.setdefault(name, ([], []))
                predicted.append(each.second)
                measured.append(each.loss_change)
            panels[operand] = series
            titles[operand] = f"{_WORDS[operand]}: rank correlation {row['second']:.2f}"
        figure = predicted_against_measured(panels, titles)
        self.figures["predicted-against-measured"] = figure
        self.sections.append(
            Section(
                "One operand at a time: the loss, predicted and measured",
                "measured here",
                f"The loss of the batch is {found.loss:.4g}. Predicted: <b>first</b> order "
                "g·δ; <b>second</b>, with ½ Σ h·δ², h the Hessian's diagonal (Hutchinson); "
                "<b>trace</b>, with its mean; <b>noise</b>, the noise to signal at the "
                "layer's output alone. Below: Spearman's rank correlation of each with the "
                "measured change, by magnitude. Of gradients it is the share of the step's "
                "decrease that is lost.",
                (figure, rows_as_html(found.correlations())),
            )
        )

    def add_allocation(
        self,
        rows: Sequence[Mapping[str, Any]],
        bits: Sequence[Mapping[str, Any]],
    ) -> None:
        """Bits of each layer, and the allocation beside uniform bits."""
        layers = [row["layer"] for row in bits]
        operands = [o for o in _WORDS if any(o in row for row in bits)]
        drawn = {o: [float(bits_of(row[o])) for row in bits] for o in operands}
        figure = bits_by_layer(layers, drawn, _WORDS, "Bits of each layer, allocated")
        self.figures["bits-by-layer"] = figure
        table = rows_as_html([dict(row) for row in rows], ("right", "float"))
        self.sections.append(
            Section(
                "Bits under a budget",
                "measured here",
                "The formats whose squared score errors, measured one operand at a time, "
                "have the smallest sum at this mean of bits: an exact optimum of that sum. "
                "Measured on examples that were not used for it, where there are any.",
                (figure, table),
            )
        )

    def add_photographs(
        self,
        pixels: Sequence[np.ndarray],
        captions: Sequence[str],
        tops: Sequence[TopClasses],
        labels: Sequence[int],
        names: Sequence[str],
    ) -> None:
        """One row a photograph: its five likeliest classes in each arithmetic."""
        guesses = [
            [
                [
                    Guess(
                        names[int(c)],
                        float(share),
                        None if label < 0 else int(c) == label,
                    )
                    for c, share in zip(top.classes[i], top.shares[i], strict=True)
                ]
                for top in tops
            ]
            for i, label in enumerate(labels)
        ]
        columns = [top.arithmetic for top in tops]
        figure = photo_rows(pixels, captions, columns, guesses)
        self.figures["photographs"] = figure
        self.sections.append(
            Section(
                "Photographs",
                "measured here",
                "The five likeliest classes; a bar's length is the probability. Green: the "
                "class of the photograph; orange: another one on top.",
                (figure,),
            )
        )

    def add_sufficiency(self, found: Sufficiency) -> None:
        """Map of the smallest sufficient formats."""
        columns = [f"{p.value}\n{operand}" for p, operand in COLUMNS]
        names, bits = [], []
        for layer in found.layers:
            smallest = [found.smallest(layer, p.value, o) for p, o in COLUMNS]
            there = [found.recorded(layer, p.value, o) for p, o in COLUMNS]
            names.append(
                [
                    n or ("none" if t else "")
                    for n, t in zip(smallest, there, strict=True)
                ]
            )
            bits.append([float(bits_of(n)) if n else np.nan for n in smallest])
        title = f"First format with an error of at most {found.threshold:g}"
        figure = format_map(found.layers, columns, names, np.array(bits), title)
        self.figures["sufficient-formats"] = figure
        tried = ", ".join(dict.fromkeys(e.format for e in found.errors))
        self.sections.append(
            Section(
                "Which format suffices",
                "measured here",
                "One operand of one product is rounded, the other is exact; the relative "
                "error is that of the product against float64, the worst of the recorded "
                f"steps. Tried in this order: {escaped(tried)}. Empty: no such product was "
                "computed.",
                (figure,),
            )
        )
