"""The sparse-training study: every method, several sparsities and seeds, one table.

Each (method, sparsity, seed) is one run of :func:`elision.training.train` whose result
is a small JSON file; a study that was interrupted goes on with the runs that are
missing. Beside the measured table stands the published one for ResNet-50 on ImageNet:
other data, another network, 90 epochs; it is there for the order of the methods.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from elision import methods
from elision.files import write_json
from elision.methods import Method
from elision.names import lookup
from elision.products import Product
from elision.training import RunPlan, TrainingDivergedError, train
from elision.workloads import Workload

__all__ = [
    "EXPECTED",
    "METHODS",
    "PUBLISHED",
    "WORKLOAD",
    "Row",
    "RunResult",
    "markdown",
    "orderings",
    "run",
    "table",
]

#: The study as it was run for the records: small enough for an hour of one core.
WORKLOAD = Workload(
    name="fashion-resnet8-narrow",
    dataset="fashion-mnist",
    model="resnet8",
    epochs=5,
    train_images=4000,
    test_images=2000,
    model_options={"width": 8},
)

#: Builds a method from the sparsity asked for and the number of steps of the run.
Build = Callable[[float, int], Method]


def _moving(method: Callable[..., Method], **options: Any) -> Build:
    """A method whose masks move about 30 times in the first three quarters of a run."""

    def build(sparsity: float, steps: int) -> Method:
        until = max(1, 3 * steps // 4)
        return method(
            sparsity=sparsity, every=max(1, until // 30), until=until, **options
        )

    return build


#: The methods of the study. ReSprop's reuse and one minus meProp's share are the
#: sparsity asked for, so the numbers say what is left out, not the same thing.
METHODS: dict[str, Build] = {
    "dense": lambda s, n: methods.Dense(),
    "static-erk": lambda s, n: methods.Static(s),
    "set": _moving(methods.SET),
    "rigl-uniform": _moving(methods.RigL, distribution="uniform"),
    "rigl-erk": _moving(methods.RigL),
    "rigl-added": _moving(methods.RigL, replaces_step=False),
    "snfs": _moving(methods.SNFS),
    "dsr": _moving(methods.DSR),
    "dst": lambda s, n: methods.DST(target=s),
    "swat-u": lambda s, n: methods.Swat(s),
    "swat-erk": lambda s, n: methods.SwatErk(s),
    "swat-m": lambda s, n: methods.SwatM(s),
    "swat-structured": lambda s, n: methods.SwatStructured(s),
    "resprop": lambda s, n: methods.ReSprop(s),
    "w-resprop": lambda s, n: methods.WReSprop(s, warmup_steps=n // 10),
    "meprop": lambda s, n: methods.MeProp(round(1 - s, 6)),
    "gradual": lambda s, n: methods.Gradual(s, end=3 * n // 4, every=max(1, n // 40)),
    "srigl": _moving(methods.SRigL),
    "top-kast": lambda s, n: methods.TopKAST(
        s, backward_sparsity=max(0.0, s - 0.1), every=max(1, n // 40)
    ),
}

#: Published: ResNet-50 on ImageNet, top-1 accuracy in percent at 80 and at 90 %
#: sparsity, dense 76.8. Sources: T. Aamodt, FastPath 2022 (SET, SNFS, DSR, DST, RigL
#: uniform); README of google-research/rigl (RigL ERK); README of AamirRaihan/SWAT.
PUBLISHED = {
    "set": (73.4, 71.3),
    "dsr": (74.1, 71.9),
    "snfs": (74.9, 72.9),
    "rigl-uniform": (74.6, 72.0),
    "rigl-erk": (75.12, 73.07),
    "dst": (74.0, 72.8),
    "swat-u": (75.2, 72.1),
    "swat-erk": (76.0, 73.8),
    "swat-m": (74.6, 74.0),
}

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
class RunResult:
    """One trained network.

    Attributes:
        method: key of :data:`METHODS`.
        sparsity: asked for.
        seed: of the run.
        accuracy: of the test images after the last epoch, with the weights that the
            method's forward product reads; None if the run diverged.
        training_work: realised work of the metered steps over the dense work.
        inference_work: the same of the forward products alone.
        seconds: wall-clock seconds of the run on this machine.
    """

    method: str
    sparsity: float
    seed: int
    accuracy: float | None
    training_work: float
    inference_work: float
    seconds: float


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
        published: on ImageNet, of ResNet-50; None where there is none.
    """

    method: str
    sparsity: float
    seeds: int
    diverged: int
    mean: float | None
    spread: float | None
    training_work: float
    inference_work: float
    published: float | None


def run(
    folder: Path,
    workload: Workload = WORKLOAD,
    *,
    names: Iterable[str] = tuple(METHODS),
    sparsities: Iterable[float] = (0.9, 0.8, 0.95),
    seeds: Iterable[int] = (0, 1, 2),
    path: str | Path | None = None,
    seconds: float | None = None,
    progress: Callable[[RunResult], None] | None = None,
) -> list[RunResult]:
    """Train what is missing of a study and return what is there.

    Args:
        folder: one JSON file a run goes here.
        workload: data, network and training settings.
        names: methods, keys of :data:`METHODS`.
        sparsities: asked for, in this order; the dense network is trained once.
        seeds: of the runs.
        path: where the data set lies, if it needs a folder.
        seconds: start no run after so many; None for no limit.
        progress: told of every finished run.

    Returns:
        The results of all finished runs that were asked for.

    Raises:
        ValueError: unknown method.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dataset, began = workload.load_dataset(path), time.monotonic()
    steps = workload.epochs * -(-len(dataset.train_images) // workload.batch_size)
    results = []
    for name, sparsity, seed in _runs(tuple(names), tuple(sparsities), tuple(seeds)):
        file = folder / f"{name}-{round(100 * sparsity)}-{seed}.json"
        if file.is_file():
            results.append(RunResult(**json.loads(file.read_text())))
            continue
        if seconds is not None and time.monotonic() - began > seconds:
            continue
        method = lookup("method", name, METHODS)(sparsity, steps)
        started = time.monotonic()
        plan = RunPlan(seed=seed, meter_every=_meter_every(method))
        try:
            trained = train(workload, method, dataset, plan)
        except TrainingDivergedError:
            found: tuple[float | None, float, float] = (None, 1.0, 1.0)
        else:
            forward = trained.meter.by_product()[Product.FORWARD].ratio
            accuracy = trained.history[-1].test_accuracy
            found = (accuracy, trained.meter.total().ratio, forward)
        took = time.monotonic() - started
        results.append(RunResult(name, sparsity, seed, *found, round(took, 2)))
        write_json(file, asdict(results[-1]))
        if progress is not None:
            progress(results[-1])
    return results


def _meter_every(method: Method) -> int:
    """Steps between two that are metered: a period that meets every phase of the moves'.

    With a common factor, the meter would see the steps of a move always or never.
    """
    moves = method.parameters().get("every", 1)
    return next(n for n in range(7, 7 + moves + 1) if math.gcd(n, moves) == 1)


def _runs(
    names: tuple[str, ...], sparsities: tuple[float, ...], seeds: tuple[int, ...]
) -> Iterator[tuple[str, float, int]]:
    """All runs, so that an early stop leaves whole comparisons behind."""
    for sparsity in sparsities:
        for seed in seeds:
            for name in names:
                if name != "dense":
                    yield name, sparsity, seed
                elif sparsity == sparsities[0]:
                    yield name, 0.0, seed


def table(results: Iterable[RunResult]) -> list[Row]:
    """Mean and spread of each method and sparsity, in the order of the study."""
    groups: dict[tuple[float, str], list[RunResult]] = {}
    for result in results:
        groups.setdefault((result.sparsity, result.method), []).append(result)
    rows = []
    for (sparsity, method), group in sorted(groups.items(), key=_place):
        right = [100 * r.accuracy for r in group if r.accuracy is not None]
        pair = PUBLISHED.get(method)
        published = {0.8: 0, 0.9: 1}.get(sparsity)
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
                published=None
                if pair is None or published is None
                else pair[published],
            )
        )
    return rows


def _place(group: tuple[tuple[float, str], Any]) -> tuple[float, int]:
    (sparsity, method), _ = group
    return sparsity, list(METHODS).index(method)


def markdown(rows: Iterable[Row]) -> str:
    """The table as Markdown, measured and published figures in columns of their own."""
    lines = [
        "| method | sparsity | accuracy, measured | training work | forward work "
        "| ResNet-50 on ImageNet, published |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy = "diverged" if row.mean is None else f"{row.mean:.1f}"
        if row.spread is not None:
            accuracy += f" ± {row.spread:.1f} ({row.seeds} seeds)"
        elif row.mean is not None:
            accuracy += " (1 seed)"
        if row.diverged and row.mean is not None:
            accuracy += f", {row.diverged} diverged"
        published = "" if row.published is None else f"{row.published:g}"
        lines.append(
            f"| {row.method} | {100 * row.sparsity:g} % | {accuracy} "
            f"| {row.training_work:.3f} | {row.inference_work:.3f} | {published} |"
        )
    return "\n".join(lines)


def orderings(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """What the literature leads one to expect, and what was measured.

    Each entry names the pair, the sparsity, the difference of the means in points and
    twice its standard error over the seeds; ``verdict`` is ``"confirmed"`` or
    ``"denied"`` where the difference exceeds that, ``"within the spread"`` otherwise.
    """
    by_name = {(row.method, row.sparsity): row for row in rows}
    found = []
    for sparsity in sorted({s for _, s in by_name if s}):
        for better, worse in EXPECTED:
            first = by_name.get((better, 0.0 if better == "dense" else sparsity))
            second = by_name.get((worse, sparsity))
            if first is None or second is None:
                continue
            if first.mean is None or second.mean is None:
                continue
            difference = first.mean - second.mean
            noise = 2 * (_variance(first) + _variance(second)) ** 0.5
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


def _variance(row: Row) -> float:
    """Variance of a row's mean; 0 where a single seed tells nothing of it."""
    return row.spread**2 / row.seeds if row.spread is not None else 0.0
