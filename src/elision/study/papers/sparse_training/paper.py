"""The sparse-training study: what its runs come to, beside published tables.

The runs are made by :mod:`elision.study.papers.sparse_training.runs`. The published
tables are of other data, other networks and up to 250 epochs; they are there for the
order of the methods.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from elision.common.files import write_json, write_text
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
    "markdown",
    "orderings",
    "orderings_markdown",
    "study",
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
        sparsity: asked for.
        seeds: runs that finished.
        diverged: runs whose loss became infinite.
        mean: accuracy.
        spread: its standard deviation over seeds; None for a single one.
        training_work: mean over seeds.
        inference_work: mean over seeds.
    """

    method: str
    sparsity: float
    seeds: int
    diverged: int
    mean: float | None
    spread: float | None
    training_work: float
    inference_work: float


def study(
    folder: Path,
    *,
    networks: Iterable[str] = tuple(NETWORKS),
    data: Path | None = None,
    names: Iterable[str] = tuple(METHODS),
    sparsities: Iterable[float] = SPARSITIES,
    seeds: int = 3,
    seconds: float | None = None,
    progress: Callable[[str, RunResult], None] | None = None,
    **settings: int,
) -> str:
    """Train what is missing of the study and write its tables.

    ``study.md`` and ``study.json`` hold what was asked for and has been run,
    ``<network>/`` the runs themselves.

    Args:
        folder: of the study.
        networks: keys of :data:`NETWORKS`, in this order.
        data: folder of Fashion-MNIST; None for what is installed.
        names: methods.
        sparsities: asked for.
        seeds: runs of each.
        seconds: start no run after so many; None for no limit.
        progress: told of every finished run and its network.
        **settings: of :func:`study_workload`, such as ``epochs``.

    Returns:
        The text of ``study.md``.

    Raises:
        ValueError: an unknown name, a number out of range, or a folder with runs of
            other settings.
    """
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: must be >= 1")
    workloads = {name: study_workload(name, data, **settings) for name in networks}
    chosen, parts, facts, began = tuple(names), [], {}, time.monotonic()
    for network, workload in workloads.items():
        used = time.monotonic() - began
        results = run(
            folder / network,
            workload,
            names=chosen,
            sparsities=sparsities,
            seeds=range(seeds),
            path=data,
            seconds=None if seconds is None else max(0.0, seconds - used),
            progress=None if progress is None else partial(progress, network),
        )
        rows = table(results)
        facts[network] = {
            "workload": asdict(workload),
            "runs": [asdict(result) for result in results],
            "table": [asdict(row) for row in rows],
            "orderings": orderings(rows),
        }
        if rows:
            parts += [f"## {network}", _about(workload), markdown(rows)]
        if facts[network]["orderings"]:
            parts += ["### Expected orders", orderings_markdown(rows)]
    text = "\n\n".join(parts or ["No run is finished."]) + "\n"
    write_json(folder / "study.json", facts)
    write_text(folder / "study.md", text)
    return text


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
    columns = ["method", "sparsity", "accuracy, measured", "training work"]
    columns += ["forward work", *(f"{p.title}, published" for p in PUBLISHED)]
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        published = [p.at(row.method, row.sparsity) for p in PUBLISHED]
        lines.append(
            [
                row.method,
                f"{100 * row.sparsity:g} %",
                _accuracy(row),
                f"{row.training_work:.3f}",
                f"{row.inference_work:.3f}",
                *("" if top1 is None else f"{top1:g}" for top1 in published),
            ]
        )
    return _markdown(lines)


def _accuracy(row: Row) -> str:
    """Mean and spread in words, with the number of runs behind them."""
    if row.mean is None:
        return "diverged"
    words = f"{row.mean:.1f}"
    if row.spread is not None:
        words += f" ± {row.spread:.1f} ({row.seeds} seeds)"
    else:
        words += " (1 seed)"
    return words + (f", {row.diverged} diverged" if row.diverged else "")


def _markdown(lines: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def orderings(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """What the literature leads one to expect, and what was measured.

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
    columns = ["sparsity", "better, by the literature", "worse", "difference, points"]
    columns += ["twice its standard error", "verdict"]
    lines = [columns, ["---"] * len(columns)]
    for found in orderings(rows):
        lines.append(
            [
                f"{100 * found['sparsity']:g} %",
                found["better"],
                found["worse"],
                f"{found['difference']:+.1f}",
                f"{found['noise']:.1f}",
                found["verdict"],
            ]
        )
    return _markdown(lines)
