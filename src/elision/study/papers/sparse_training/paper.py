"""The sparse-training study: the tables of its runs, beside published ones.

The runs are made by :mod:`elision.study.papers.sparse_training.runs`. The published
tables are of other data, other networks and up to 250 epochs; they are there for the
order of the methods.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from elision.common.checks import integer
from elision.common.columns import Column, as_text, column, columns
from elision.common.files import write_json, write_text
from elision.common.names import lookup
from elision.report.table import rows_as_markdown
from elision.study.papers.base import Figure, Paper, Progress, Report, Table, silent
from elision.study.papers.sparse_training.runs import (
    METHODS,
    NETWORKS,
    SPARSITIES,
    RunResult,
    run,
    study_workload,
)
from elision.workloads import Workload

__all__ = [
    "EXPECTED",
    "PUBLISHED",
    "Published",
    "Row",
    "SparseTraining",
    "markdown",
    "orderings",
    "orderings_markdown",
    "table",
]


@dataclass(frozen=True)
class Published:
    """A published table: top-1 accuracy in percent, by method and sparsity.

    Attributes:
        title: network and data.
        source: where the figures were read.
        dense: accuracy of the dense network; None where the source gives none.
        top1: method of the study -> sparsity -> accuracy.

    Example:
        >>> PUBLISHED[0].at("rigl-erk", 0.9)
        73.07
    """

    title: str
    source: str
    dense: float | None
    top1: Mapping[str, Mapping[float, float]]

    def at(self, method: str, sparsity: float) -> float | None:
        """The published accuracy, if there is one."""
        if method == "dense":
            return self.dense
        return self.top1.get(method, {}).get(sparsity)


#: A column of the study's table each.
PUBLISHED = (
    Published(
        "ResNet-50, ImageNet",
        "T. Aamodt, FastPath 2022 (SET, SNFS, DSR, DST, RigL uniform); READMEs of "
        "google-research/rigl (RigL ERK) and AamirRaihan/SWAT",
        76.8,
        {
            "set": {0.8: 73.4, 0.9: 71.3},
            "dsr": {0.8: 74.1, 0.9: 71.9},
            "snfs": {0.8: 74.9, 0.9: 72.9},
            "rigl-uniform": {0.8: 74.6, 0.9: 72.0},
            "rigl-erk": {0.8: 75.12, 0.9: 73.07},
            "dst": {0.8: 74.0, 0.9: 72.8},
            "swat-u": {0.8: 75.2, 0.9: 72.1},
            "swat-erk": {0.8: 76.0, 0.9: 73.8},
            "swat-m": {0.8: 74.6, 0.9: 74.0},
        },
    ),
    Published(
        "ResNet-34, ImageNet",
        "T. Aamodt, FastPath 2022, table 4; reuse in place of sparsity",
        73.34,
        {"resprop": {0.9: 63.78}, "w-resprop": {0.9: 72.44}},
    ),
    Published(
        "WRN-22-2, CIFAR-10",
        "google-research/rigl, issue 8; gradual is its 'pruning'",
        None,
        {
            "static-erk": {0.8: 92.9, 0.9: 91.5, 0.95: 89.0},
            "rigl-erk": {0.8: 93.6, 0.9: 92.9, 0.95: 91.8},
            "gradual": {0.8: 93.6, 0.9: 93.3, 0.95: 92.3},
        },
    ),
)

#: Orders that the literature leads one to expect, better first. They are compared with
#: what was measured, not assumed.
EXPECTED = (
    ("dense", "rigl-erk"),
    ("rigl-erk", "set"),
    ("set", "static-erk"),
    ("rigl-erk", "rigl-uniform"),
    ("swat-erk", "swat-u"),
    ("w-resprop", "resprop"),
)


@dataclass(frozen=True)
class Row:
    """One method at one sparsity over its seeds; accuracies in percent.

    Attributes:
        method: key of :data:`METHODS`.
        sparsity: parameter of the method.
        seeds: runs that finished.
        diverged: runs whose loss became infinite.
        mean: accuracy.
        spread: its standard deviation over seeds; None for a single one.
        training_work: mean over seeds.
        inference_work: mean over seeds.

    Example:
        >>> Row("set", 0.9, 2, 0, 71.0, 1.4, 0.2, 0.1).accuracy
        '71.0 ± 1.4 (2 seeds)'
    """

    method: str = column("method")
    sparsity: float = column("sparsity", "g", " %", scale=100)
    seeds: int = column("seeds")
    diverged: int = column("diverged")
    mean: float | None = column("mean", ".1f")
    spread: float | None = column("spread", ".1f")
    training_work: float = column("training work", ".3f")
    inference_work: float = column("forward work", ".3f")

    @property
    def accuracy(self) -> str:
        """Mean and spread in words, with the number of runs behind them."""
        if self.mean is None:
            return "diverged"
        words = f"{self.mean:.1f}"
        if self.spread is not None:
            words += f" ± {self.spread:.1f} ({self.seeds} seeds)"
        else:
            words += " (1 seed)"
        return words + (f", {self.diverged} diverged" if self.diverged else "")


@dataclass(frozen=True)
class SparseTraining(Paper):
    """The sparse-training methods, N:M excepted, on small images, beside published tables.

    A run takes some ten seconds to a minute, and there are a few hundred; the same
    command goes on where it was stopped, and what is finished is in the tables.

    Attributes:
        network: resnet8, vgg16.
        method: Methods of the study; default: all.
        sparsity: Sparsities; for ReSprop the reuse, for meProp one minus the share kept.
        seeds: Runs of each.
        data: Folder of Fashion-MNIST; default: that of Debian's package
            dataset-fashion-mnist, and where it is not installed, patches of photographs.
        epochs: Passes over the images.
        train_images: Upper limit of the images for training.
        test_images: Upper limit of the images for testing.
        minutes: Time after which no further run starts; default: no limit.

    Raises:
        ValueError: an unknown name or a number out of range.

    Example:
        >>> SparseTraining(network=("resnet8",)).workloads()["resnet8"].epochs
        5
    """

    key = "sparse-training"
    title = "Published tables of dynamic sparse training, SWAT and ReSprop"
    published = tuple(
        Figure(
            f"{method} at {100 * sparsity:g} %, {table.title}",
            f"{top1:g} %",
            table.source,
        )
        for table in PUBLISHED
        for method, figures in table.top1.items()
        for sparsity, top1 in figures.items()
    )

    network: tuple[str, ...] = tuple(NETWORKS)
    method: tuple[str, ...] = ()
    sparsity: tuple[float, ...] = SPARSITIES
    seeds: int = 3
    data: Path | None = None
    epochs: int = 5
    train_images: int = 4000
    test_images: int = 2000
    minutes: float | None = None

    def __post_init__(self) -> None:
        for network in self.network:
            lookup("network", network, NETWORKS)
        for method in self.method:
            lookup("method", method, METHODS)
        integer("SparseTraining", "seeds", self.seeds)

    def workloads(self) -> dict[str, Workload]:
        """Data, network and settings of the runs, by network."""
        return {
            name: study_workload(
                name,
                self.data,
                epochs=self.epochs,
                train_images=self.train_images,
                test_images=self.test_images,
            )
            for name in self.network
        }

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Train what is missing and write the tables; see :meth:`Paper.run`.

        ``study.md`` and ``study.json`` hold the finished runs of these parameters,
        ``<network>/`` the runs themselves.

        Raises:
            ValueError: a number out of range, or a folder with runs of other settings.
        """
        tables: list[Table] = []
        facts: dict[str, Any] = {}
        began = time.monotonic()
        for network, workload in self.workloads().items():
            used = time.monotonic() - began
            left = None if self.minutes is None else max(0.0, 60 * self.minutes - used)
            results = run(
                folder / network,
                workload,
                names=self.method or tuple(METHODS),
                sparsities=self.sparsity,
                seeds=range(self.seeds),
                path=self.data,
                seconds=left,
                progress=lambda result, network=network: report(f"{network}: {result}"),
            )
            rows = table(results)
            facts[network] = {
                "workload": asdict(workload),
                "runs": [asdict(result) for result in results],
                "table": [asdict(row) for row in rows],
                "orderings": orderings(rows),
            }
            if rows:
                title = f"## {network}\n\n{_about(workload)}"
                tables.append(Table(title, _cells(rows)))
            if facts[network]["orderings"]:
                tables.append(Table("### Expected orders", _order_cells(rows)))
        write_json(folder / "study.json", facts)
        write_text(folder / "study.md", self.text(tables))
        return tables

    def text(self, tables: Sequence[Table]) -> str:
        """The tables as Markdown, the text of ``study.md``."""
        parts = [f"{t.title}\n\n{rows_as_markdown(t.rows)}" for t in tables]
        return "\n\n".join(parts or ["No run is finished."]) + "\n"


def _about(workload: Workload) -> str:
    width = workload.model_options["width"]
    return (
        f"{workload.model} of width {width} on {workload.dataset}, at most "
        f"{workload.train_images:,} images for training and {workload.test_images:,} for "
        f"test, {workload.epochs} epochs, batch {workload.batch_size}, rate "
        f"{workload.learning_rate:g} falling along a cosine. Accuracy in percent of the "
        "test images, mean ± standard deviation over seeds; work over that of dense "
        "training, realised."
    )


def table(results: Iterable[RunResult]) -> list[Row]:
    """Mean and spread of each method and sparsity, in the order of the study."""
    groups: dict[tuple[float, str], list[RunResult]] = {}
    for result in results:
        groups.setdefault((result.sparsity, result.method), []).append(result)
    rows = []
    for (sparsity, method), group in sorted(groups.items(), key=_place):
        right = [100 * r.accuracy for r in group if r.accuracy is not None]
        rows.append(
            Row(
                method,
                sparsity,
                seeds=len(right),
                diverged=len(group) - len(right),
                mean=fmean(right) if right else None,
                spread=stdev(right) if len(right) > 1 else None,
                training_work=fmean(r.training_work for r in group),
                inference_work=fmean(r.inference_work for r in group),
            )
        )
    return rows


def _place(group: tuple[tuple[float, str], Any]) -> tuple[float, int]:
    (sparsity, method), _ = group
    return sparsity, list(METHODS).index(method)


def markdown(rows: Iterable[Row]) -> str:
    """The table as Markdown, measured and published figures in columns of their own."""
    return rows_as_markdown(_cells(rows))


def _cells(rows: Iterable[Row]) -> list[dict[str, str]]:
    known = columns(Row) | {"accuracy": Column("accuracy, measured")}
    shown = ("method", "sparsity", "accuracy", "training_work", "inference_work")
    top1 = Column("", "g")
    return [
        as_text(row, shown, known)
        | {
            f"{p.title}, published": top1.text(p.at(row.method, row.sparsity))
            for p in PUBLISHED
        }
        for row in rows
    ]


def orderings(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Orders that the literature leads one to expect, beside the measured ones.

    Each entry names the pair, the sparsity, the difference of the means in points and
    twice its standard error over the seeds; ``verdict`` is ``"confirmed"`` or
    ``"denied"`` where the difference exceeds that, ``"within the spread"`` otherwise.
    Pairs of which one has a single seed, and so no spread, are left out.
    """
    known = {
        (row.method, row.sparsity): (row.mean, row.spread**2 / row.seeds)
        for row in rows
        if row.mean is not None and row.spread is not None
    }
    found = []
    for sparsity in sorted({s for _, s in known if s}):
        for better, worse in EXPECTED:
            first = known.get((better, 0.0 if better == "dense" else sparsity))
            second = known.get((worse, sparsity))
            if first is None or second is None:
                continue
            difference = first[0] - second[0]
            noise = 2 * (first[1] + second[1]) ** 0.5
            verdict = "confirmed" if difference > 0 else "denied"
            if abs(difference) <= noise:
                verdict = "within the spread"
            found.append(
                {
                    "sparsity": sparsity,
                    "better": better,
                    "worse": worse,
                    "difference": round(difference, 2),
                    "noise": round(noise, 2),
                    "verdict": verdict,
                }
            )
    return found


def orderings_markdown(rows: Iterable[Row]) -> str:
    """The orders as Markdown."""
    return rows_as_markdown(_order_cells(rows))


def _order_cells(rows: Iterable[Row]) -> list[dict[str, str]]:
    return [
        {
            "sparsity": f"{100 * found['sparsity']:g} %",
            "better, by the literature": found["better"],
            "worse": found["worse"],
            "difference, points": f"{found['difference']:+.1f}",
            "twice its standard error": f"{found['noise']:.1f}",
            "verdict": found["verdict"],
        }
        for found in orderings(rows)
    ]
