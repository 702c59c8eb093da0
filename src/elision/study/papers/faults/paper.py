"""Compressed networks under faults: published resilience beside four measures of our own.

Published rankings use one measure and do not say which. Ours are for small networks on
data that ship; what is compared is the direction, and whether it holds under each measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elision.common.checks import integer
from elision.common.files import to_csv, write_json, write_text
from elision.faults import Campaign, Fault, campaign
from elision.report.fault_figures import bit_curves, layer_bars, rate_curves
from elision.study.faults import (
    MEASURES,
    Network,
    curves_by_bit,
    network_rows,
    shares_by_layer,
    struck_networks,
    test_examples,
    trained_under,
)
from elision.study.papers.base import (
    Paper,
    Progress,
    Report,
    Rows,
    Table,
    silent,
)
from elision.study.papers.faults.published import (
    CONTRARY,
    LASCAS,
    MRFI_LENET,
    PUBLISHED,
)
from elision.workloads import find_workload

__all__ = ["Faults"]


@dataclass(frozen=True)
class Faults(Paper):
    """Flipped bits in dense, pruned and quantised networks.

    Attributes:
        workload: What is trained.
        pruned: Recipe of the pruned network.
        ternary: Recipe of a network that is trained in ternary weights, and stored so.
        formats: Number formats beside float32, of the other two; the first is that of the
            published claims.
        trials: Of each network by bit, and half of them by layer.
        rates: Faults a stored bit, for the curve of accuracy.
        rate_trials: Trials at each rate.
        examples: Test images, at most.
        epochs: Passes over the images; 0: the workload's.
        seed: Of the trainings and the faults.
        workers: Processes.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> Faults(trials=100).formats
        ('int8', 'bf16')
    """

    key = "faults"
    title = (
        "Reliability Evaluation of Compressed Deep Learning Models, IEEE LASCAS 2020, and "
        "the LeNet of MRFI"
    )
    published = (*PUBLISHED, *CONTRARY)
    unstated = (
        "Networks, sparsities, storage and the measure behind the published factors are "
        "not in the abstract. Here a trial flips one bit, uniform over all stored bits of "
        "the weights of convolutions and linear layers, zeros of a pruned network among "
        "them; int8 and bf16 are applied after training, per tensor, without calibration or "
        "fine-tuning, and the ternary network is trained as such (TWN). MRFI's "
        "LeNet is another network on other images: its curve is beside ours for the shape."
    )

    workload: str = "digits-cnn"
    pruned: str = "gradual:sparsity=0.8"
    ternary: str = "twn"
    formats: tuple[str, ...] = ("int8", "bf16")
    trials: int = 6400
    rates: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3)
    rate_trials: int = 100
    examples: int = 300
    epochs: int = 0
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("trials", "rate_trials", "examples", "workers"):
            integer("Faults", name, getattr(self, name))

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Train, strike, and write ``networks.csv``, ``rates.csv`` and ``faults.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        chosen = find_workload(self.workload).changed(epochs=self.epochs or None)
        dataset = chosen.load_dataset(None)
        networks = {}
        recipes = {"dense": "dense", "pruned": self.pruned, "ternary": self.ternary}
        for name, recipe in recipes.items():
            place = folder / "networks" / name
            place.mkdir(parents=True, exist_ok=True)
            networks[name] = trained_under(
                chosen, recipe, dataset, seed=self.seed, folder=place
            )
        data = test_examples(dataset, self.examples)
        stored = [
            (name, format)
            for name in ("dense", "pruned")
            for format in (None, *self.formats)
        ]
        stored.append(("ternary", "ternary"))
        under_rates = [f for f in stored if f[1] in (None, self.formats[0], "ternary")]
        total = len(stored) + len(under_rates) * len(self.rates)
        done = 0
        struck: list[Network] = []
        for name, format in stored:
            struck += struck_networks(
                {name: networks[name]},
                data,
                Fault(),
                [format],
                trials=self.trials,
                folder=folder / "trials",
                seed=self.seed,
                workers=self.workers,
            )
            done += 1
            progress(done, total)
        rates: dict[str, list[tuple[float, Campaign]]] = {}
        for name, format in under_rates:
            for rate in self.rates:
                found = campaign(
                    networks[name],
                    data,
                    Fault(rate=rate, format=format),
                    trials=self.rate_trials,
                    block=min(100, self.rate_trials),
                    seed=self.seed,
                    folder=folder / "rates" / f"{name}-{format or 'fp32'}-{rate:g}",
                )
                key = f"{name}, {format or 'fp32'}"
                rates.setdefault(key, []).append((rate, found))
                done += 1
                progress(done, total)
        return self._tables(folder, struck, rates)

    def _tables(
        self,
        folder: Path,
        struck: Sequence[Network],
        rates: dict[str, list[tuple[float, Campaign]]],
    ) -> list[Table]:
        rows = network_rows(struck)
        curves = {
            name: [(rate, 100 * _accuracy(found)) for rate, found in points]
            for name, points in rates.items()
        }
        rate_rows = [
            {"network": name, "rate": rate, "accuracy %": round(accuracy, 1)}
            for name, points in curves.items()
            for rate, accuracy in points
        ]
        write_text(folder / "networks.csv", to_csv(rows))
        write_text(folder / "rates.csv", to_csv(rate_rows))
        write_json(
            folder / "faults.json",
            {n.name: n.bits.to_dict() for n in struck},
        )
        published = {"LeNet of MRFI": [(r, 100 * a) for r, a in MRFI_LENET.items()]}
        return [
            Table(
                "Published factors beside ours, by each measure\n"
                "Times as resilient as the dense float32 network; published: up to.",
                self._claims(rows),
            ),
            Table(
                "Networks under one flip a trial",
                rows,
                layer_bars(shares_by_layer(struck), "Predictions changed, by layer, %"),
                "measured here",
            ),
            Table(
                "Wrong trials by bit\nWith Wilson's intervals of 95 %.",
                [],
                bit_curves(curves_by_bit(struck), "Wrong trials by bit"),
                "measured here",
            ),
            Table(
                "Accuracy under a rate of faults",
                rate_rows,
                rate_curves(curves, "Accuracy under faults in weights", published),
                "measured here",
            ),
        ]

    def _claims(self, rows: Rows) -> Rows:
        """Published factor, and ours by each measure."""
        by_name = {row["network"]: row for row in rows}
        ours = {
            "pruned": "pruned, fp32",
            "quantised": f"dense, {self.formats[0]}",
            "pruned and quantised": f"pruned, {self.formats[0]}",
        }
        found: list[dict[str, Any]] = []
        for claim, factor in LASCAS.items():
            row = by_name[ours[claim]]
            found.append(
                {
                    "network": claim,
                    "published": f"{factor:g}x",
                    **{words: row[words] for words in MEASURES.values()},
                }
            )
        return found


def _accuracy(found: Campaign) -> float:
    """Mean accuracy under faults."""
    drops = found.trials.drop
    return found.accuracy - sum(drops) / len(drops)
