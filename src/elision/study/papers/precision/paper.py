"""Number formats in training: every recipe on real data, beside the published figures.

The published figures are for ImageNet, large recurrent networks and other machines; ours
are for small networks on data that ship, trained for some epochs. They stand side by side
to show what carries over, and are no reproduction of the published accuracies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from elision.common.checks import integer
from elision.common.files import to_csv, write_json, write_text
from elision.common.names import lookup
from elision.methods import make_recipe
from elision.study.folder import environment
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Rows,
    Table,
    silent,
)
from elision.study.papers.precision.figures import curves_svg, prices_svg
from elision.study.papers.precision.findings import findings
from elision.study.papers.precision.published import PUBLISHED, claims
from elision.study.papers.precision.rows import (
    Runs,
    accuracy_rows,
    between_rows,
    curve_rows,
    error_rows,
    price_rows,
    price_shares,
    ternary_rows,
)
from elision.study.papers.precision.runs import (
    NETWORKS,
    RECIPES,
    REFERENCE,
    curves,
    study_workload,
)
from elision.study.papers.precision.units import Units
from elision.workloads import Workload

__all__ = ["Precision"]


@dataclass(frozen=True)
class Precision(Paper):
    """Number formats in training, ternary residuals and functions between the layers.

    Every recipe at every seed beside float32, its prices on every accelerator, and small
    runs of the rest. Started again with the same arguments, it runs only what is missing.

    Attributes:
        network: digits-cnn, photo-resnet8.
        recipe: Recipes beside float32; default: ten.
        seeds: Runs of each.
        epochs: Passes over the images.
        train_images: Upper limit of the images for training.
        test_images: Upper limit of the images for testing.

    Raises:
        ValueError: an unknown name or a number out of range.

    Example:
        >>> Precision(network=("digits-cnn",)).workloads()["digits-cnn"].epochs
        5
    """

    key = "precision"
    title = (
        "bfloat16, DFP-16, ternary residual networks, BCGD, K-TanH and the softmax "
        "alternatives, each with its own source"
    )
    published = tuple(
        Figure(claim.technique, claim.figure, f"{claim.source} ({claim.mark})")
        for claim in PUBLISHED
    )
    unstated = (
        "Own choices: networks, data, epochs and rates; emulation of the formats with sums "
        "in float32; bcgd from random weights; prices of narrow formats on the straight "
        "line through the two entries of Horowitz's table."
    )

    network: tuple[str, ...] = tuple(NETWORKS)
    recipe: tuple[str, ...] = RECIPES
    seeds: int = 3
    epochs: int = 5
    train_images: int = 2000
    test_images: int = 1000

    def __post_init__(self) -> None:
        for network in self.network:
            lookup("network", network, NETWORKS)
        for name in ("seeds", "epochs", "train_images"):
            integer("Precision", name, getattr(self, name))
        # Half of them calibrate the ternary networks.
        integer("Precision", "test_images", self.test_images, ">= 2")
        for recipe in self.recipe:
            make_recipe(recipe)

    @property
    def recipes(self) -> tuple[str, ...]:
        """All recipes, float32 first."""
        return tuple(dict.fromkeys((REFERENCE, *self.recipe)))

    def workloads(self) -> dict[str, Workload]:
        """Data, network and settings of the runs, by network."""
        return {
            name: study_workload(
                name,
                epochs=self.epochs,
                train_images=self.train_images,
                test_images=self.test_images,
            )
            for name in self.network
        }

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Run what is missing, and write it down.

        Writes ``units/`` (a JSON file for each training and each other part, with its
        settings and machine), ``tables/*.csv``, ``figures/*.svg`` and ``summary.json``.
        See :meth:`Paper.run`.
        """
        seeds, workloads = range(self.seeds), self.workloads()
        units = Units(
            folder / "units", workloads, self.recipes, seeds, progress, report
        )
        trainings, ternary = units.trainings(), units.ternary()
        between = units.between(self.epochs, self.train_images, self.test_images)
        beside = claims(findings(trainings, ternary, between))
        figures = {n: _figures(runs) for n, runs in trainings.items()}
        for part in ("tables", "figures"):
            (folder / part).mkdir(exist_ok=True)
        for name, rows in _files(trainings, ternary, between, beside).items():
            write_text(folder / "tables" / f"{name}.csv", to_csv(rows))
        for network, drawn in figures.items():
            for kind, svg in drawn.items():
                write_text(folder / "figures" / f"{network}-{kind}.svg", svg)
        summary = {
            "environment": environment(),
            "settings": asdict(self),
            "workloads": {name: w.to_dict() for name, w in workloads.items()},
            "trainings": trainings,
            "ternary": ternary,
            **between,
        }
        write_json(folder / "summary.json", summary)
        shown = [Table("Published beside our own", beside)]
        for network, runs in trainings.items():
            shown += _of_network(network, workloads[network], runs, figures[network])
        return shown + _of_parts(ternary, between)

    def text(self, tables: Sequence[Table]) -> str:
        """The tables for a terminal, which has no room for the claims as a table."""
        claimed, *others = tables
        parts = [claimed.title]
        for row in claimed.rows:
            lines = (
                f"{row['technique']}: {row['published']} ({row['source']}; {row['mark']})",
                f"ours: {row['ours, measured here']}",
                row["caution"],
            )
            parts.append("\n".join(_WRAP.fill(line) for line in lines))
        return "\n\n".join([*parts, super().text(others)])


#: Lines of a claim under its first.
_WRAP = TextWrapper(88, subsequent_indent="  ")


def _files(
    trainings: Mapping[str, Runs],
    ternary: Mapping[str, Any],
    between: Mapping[str, Any],
    beside: Rows,
) -> dict[str, Rows]:
    """Tables by the name of their file."""
    return {
        "published": beside,
        "accuracy": [
            {"network": network, **row}
            for network, runs in trainings.items()
            for row in accuracy_rows(runs)
        ],
        "curves": [r for n, runs in trainings.items() for r in curve_rows(n, runs)],
        "prices": [r for n, runs in trainings.items() for r in price_rows(n, runs)],
        "ternary": [r for n, part in ternary.items() for r in ternary_rows(n, part)],
        "k-tanh": error_rows(between["k_tanh"]),
        "lstm": between_rows(between["lstm"], "gates"),
        "softmax": between_rows(between["softmax"], "training loss"),
    }


def _figures(runs: Runs) -> dict[str, str]:
    """Curves and prices of one network, as SVG elements."""
    accuracy, loss = curves(runs, "accuracy"), curves(runs, "loss")
    drawn = {"curves": curves_svg(accuracy, loss, REFERENCE)}
    if prices := price_rows("", runs):
        drawn["prices"] = prices_svg(*price_shares(prices))
    return drawn


def _of_network(
    network: str, workload: Workload, runs: Runs, figures: Mapping[str, str]
) -> list[Table]:
    """The tables of one network's trainings."""
    about = (
        f"{workload.model} on {workload.dataset}, at most {workload.train_images:,} images "
        f"for training and {workload.test_images:,} for test, {workload.epochs} epochs, "
        f"rate {workload.learning_rate:g}. Mean ± standard deviation over the seeds; work "
        "and MACs are those of the products, counted in every seventh step."
    )
    simulated = (
        "One step of two examples, from the last epoch of the first seed. Energy on chip in "
        "µJ. Narrow formats move fewer words and need smaller units; cycles stay those of "
        "the machine."
    )
    tables = [
        Table(
            f"{network}: accuracy\n{about}",
            accuracy_rows(runs),
            figures["curves"],
            "measured here",
        )
    ]
    energies: dict[str, dict[str, Any]] = {}
    for row in price_rows(network, runs):
        cells = energies.setdefault(
            row["recipe"], {"recipe": row["recipe"], "formats": row["formats"]}
        )
        cells[row["accelerator"]] = f"{row['energy_on_chip_pj'] / 1e6:.1f}"
    if energies:
        tables.append(
            Table(
                f"{network}: energy and area by format\n{simulated}",
                list(energies.values()),
                figures["prices"],
                "simulated",
            )
        )
    return tables


def _of_parts(ternary: Mapping[str, Any], between: Mapping[str, Any]) -> list[Table]:
    """The tables beside the trainings."""
    here = "measured here"
    return [
        Table(
            "Ternary residual networks\nThe float32 networks of seed 0 without retraining, "
            "8-bit inputs; every second test image calibrates, the others judge.",
            [r for n, part in ternary.items() for r in ternary_rows(n, part)],
            origin=here,
        ),
        Table(
            "K-TanH\nOver float32 values in [-8, 8]; the tables over the bfloat16 values of "
            "their range.",
            error_rows(between["k_tanh"]),
            origin=here,
        ),
        Table(
            "K-TanH in the gates of an LSTM\nRows of the digits, one after the other.",
            between_rows(between["lstm"], "gates"),
            origin=here,
        ),
        Table(
            "Alternatives to softmax\nA convolutional network on digits; the loss alone "
            "differs, so losses are not compared with one another. By probability: the class "
            "of the largest probability counts, not that of the largest logit, which differ "
            "where a series falls.",
            between_rows(between["softmax"], "training loss"),
            origin=here,
        ),
    ]
