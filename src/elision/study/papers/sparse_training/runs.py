"""The runs of the sparse-training study: every method, several sparsities and seeds.

Each (method, sparsity, seed) is one run of :func:`elision.training.train` whose result
is a small JSON file; a study that was interrupted goes on with the runs that are
missing. The tables of the runs are made by :mod:`elision.study.papers.sparse_training.paper`.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elision import methods
from elision.common.files import write_json
from elision.common.names import lookup
from elision.methods import Method
from elision.products import Product
from elision.study import folder as runfolder
from elision.training.loop import RunPlan, TrainingDivergedError, train
from elision.workloads import Workload
from elision.workloads.data.mnist import DEBIAN_FOLDER

__all__ = ["METHODS", "NETWORKS", "SPARSITIES", "RunResult", "run", "study_workload"]

#: Sparsities of the study; the first is the one that most papers report.
SPARSITIES = (0.9, 0.8, 0.95)

#: Networks of the study, small enough for minutes of one core a run, and the rates
#: they are trained at: half the usual one where the first epochs are erratic.
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet8": {"learning_rate": 0.1},
    "vgg16": {"learning_rate": 0.05},
}


def study_workload(
    network: str,
    data: Path | None = None,
    *,
    epochs: int = 5,
    train_images: int = 4000,
    test_images: int = 2000,
    width: int = 8,
) -> Workload:
    """The study's workload: a narrow network on images that come with dependencies.

    Fashion-MNIST if a folder of it is given or Debian's package is installed, else
    patches of photographs, which need nothing.

    Args:
        network: key of :data:`NETWORKS`.
        data: folder of Fashion-MNIST.
        epochs: passes over the images.
        train_images: upper limit of the images for training.
        test_images: upper limit of the images for testing.
        width: channels of the network's first convolution.

    Raises:
        ValueError: unknown network, or a number out of range.
    """
    settings = dict(lookup("network", network, NETWORKS))
    fashion = data is not None or DEBIAN_FOLDER.is_dir()
    if not fashion:
        settings["learning_rate"] = 0.05
    dataset = "fashion-mnist" if fashion else "photo-patches"
    return Workload(
        name=f"{dataset}-{network}-{width}",
        dataset=dataset,
        model=network,
        epochs=epochs,
        train_images=train_images,
        test_images=test_images,
        model_options={"width": width},
        **settings,
    )


#: Builds a method from a sparsity and the number of steps of the run.
Build = Callable[[float, int], Method]


def _fitted(method: Callable[..., Method], **options: Any) -> Build:
    """A method whose masks move about 30 times in the first three quarters of a run."""
    return lambda sparsity, steps: method(sparsity=sparsity, **options).fitted(steps)


#: The methods of the study. For ReSprop the sparsity is its reuse, for meProp one minus
#: the share kept: the same number is not the same thing left out.
METHODS: dict[str, Build] = {
    "dense": lambda s, n: methods.Dense(),
    "static-erk": lambda s, n: methods.Static(s),
    "set": _fitted(methods.SET),
    "rigl-uniform": _fitted(methods.RigL, distribution="uniform"),
    "rigl-erk": _fitted(methods.RigL),
    "rigl-added": _fitted(methods.RigL, replaces_step=False),
    "snfs": _fitted(methods.SNFS),
    "dsr": _fitted(methods.DSR),
    "dst": lambda s, n: methods.DST(target=s),
    "swat-u": lambda s, n: methods.Swat(s),
    "swat-erk": lambda s, n: methods.SwatErk(s),
    "swat-m": lambda s, n: methods.SwatM(s),
    "swat-structured": lambda s, n: methods.SwatStructured(s),
    "resprop": lambda s, n: methods.ReSprop(s),
    "w-resprop": lambda s, n: methods.WReSprop(s, warmup_steps=n // 10),
    "meprop": lambda s, n: methods.MeProp(round(1 - s, 6)),
    "gradual": _fitted(methods.Gradual),
    "srigl": _fitted(methods.SRigL),
    "top-kast": lambda s, n: methods.TopKAST(
        s, backward_sparsity=max(0.0, s - 0.1)
    ).fitted(n),
}


@dataclass(frozen=True)
class RunResult:
    """One trained network.

    Attributes:
        method: key of :data:`METHODS`.
        sparsity: parameter of the method.
        seed: of the run.
        accuracy: of the test images after the last epoch, with the weights that the
            method's forward product reads; None if the run diverged.
        training_work: realised work of the metered steps over the dense work.
        inference_work: the same of the forward products alone.
        seconds: wall-clock seconds of the run on this machine.

    Example:
        >>> print(RunResult("set", 0.9, 0, 0.71, 0.2, 0.1, 12.0))
        set at 90 %, seed 0: 71.0 %, work 0.200, 12 s
    """

    method: str
    sparsity: float
    seed: int
    accuracy: float | None
    training_work: float
    inference_work: float
    seconds: float

    def __str__(self) -> str:
        """One line: what was trained, how well, how long it took."""
        right = "diverged" if self.accuracy is None else f"{100 * self.accuracy:.1f} %"
        return (
            f"{self.method} at {100 * self.sparsity:g} %, seed {self.seed}: {right}, "
            f"work {self.training_work:.3f}, {self.seconds:.0f} s"
        )


def run(
    folder: Path,
    workload: Workload,
    *,
    names: Iterable[str] = tuple(METHODS),
    sparsities: Iterable[float] = SPARSITIES,
    seeds: Iterable[int] = (0, 1, 2),
    path: str | Path | None = None,
    seconds: float | None = None,
    progress: Callable[[RunResult], None] | None = None,
) -> list[RunResult]:
    """Train the runs that are missing and return all that are finished.

    Args:
        folder: a run folder; one JSON file a run goes here.
        workload: data, network and training settings.
        names: methods, keys of :data:`METHODS`.
        sparsities: parameters of the methods, in this order; the dense network is
            trained once.
        seeds: of the runs.
        path: where the data set lies, if it needs a folder.
        seconds: time after which no further run starts; None: no limit.
        progress: called with the result of every finished run.

    Returns:
        The results of all finished runs of these methods, sparsities and seeds.

    Raises:
        ValueError: unknown method, a sparsity out of range, or a folder that holds runs
            of another workload.
    """
    for name in (names := tuple(names)):
        lookup("method", name, METHODS)
    dataset, began = workload.load_dataset(path), time.monotonic()
    steps = workload.epochs * workload.steps_per_epoch(dataset)
    wanted = [
        (name, sparsity, seed, METHODS[name](sparsity, steps))
        for name, sparsity, seed in _runs(names, tuple(sparsities), tuple(seeds))
    ]
    with runfolder.claimed(folder, workload.to_dict()):
        results = []
        for name, sparsity, seed, method in wanted:
            file = folder / f"{name}-{100 * sparsity:g}-{seed}.json"
            if file.is_file():
                results.append(
                    RunResult(**json.loads(file.read_text(encoding="utf-8")))
                )
                continue
            if seconds is not None and time.monotonic() - began > seconds:
                continue
            started = time.monotonic()
            plan = RunPlan(seed=seed, meter_every=_meter_every(method))
            try:
                trained = train(workload, method, dataset, plan)
            except TrainingDivergedError:
                found: tuple[float | None, float, float] = (None, 1.0, 1.0)
            else:
                forward = trained.meter.by_product()[Product.FORWARD].ratio
                score = trained.history[-1].score
                accuracy = None if math.isnan(score) else score
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
