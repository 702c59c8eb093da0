"""Methods of search beside one another: where the optimum is known, and on real trainings.

    python benchmarks/search_methods.py known [--out FILE] [--problems N] [--trials N]
    python benchmarks/search_methods.py trained [--out FILE] [--seeds N] [--full N]

``known``: formats (8, 6, 4 or 2 bits) of 12 layers under a budget of mean bits; costs are
``n_l bits``. Losses are, in problems of ``rounding``, ``w_l 4^-bits`` with log-normal weights
``w_l`` and a spread of its own for each choice, as squared errors of rounding have; in
problems that are ``drawn``, four uniform numbers of each layer in order. Random points, TPE
and NSGA-II see a black box with a constraint; the knapsack is exact; the Lagrangian takes
one price of cost for all layers, and so only reaches the convex hull. One problem of each
kind is also solved by trying all 4^12 assignments.

``trained``: a small convolutional network on scikit-learn's digits, searched for a
learning rate, momentum, weight decay and the sparsity of SWAT, which is at least 0.8.
All methods may spend the same number of whole trainings. What each one chose by held-out
training images is then trained on all training images, at three seeds that no search used;
the test images are read only then.
"""

import argparse
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elision.common.files import write_json
from elision.common.knapsack import knapsack
from elision.common.workers import pool
from elision.engines.bench import machine
from elision.methods import make_recipe
from elision.report.table import rows_as_text
from elision.study.search.by_training import by_training, methods
from elision.study.search.multi_objective import SAMPLERS, sampled
from elision.study.search.space import Choice, Knob, Point, Space
from elision.study.search.template import Template
from elision.study.search.trial import Trial
from elision.study.search.trials import Trials
from elision.training.loop import RunPlan, train
from elision.workloads import Workload

BITS, LAYERS, MEAN_BITS = (8, 6, 4, 2), 12, 4.5

KINDS = ("rounding", "drawn")

#: Seeds of the trainings on all training images.
FINAL_SEEDS = (100, 101, 102)

WORKLOAD = Workload(
    name="digits-small",
    dataset="digits",
    model="cnn",
    epochs=9,
    batch_size=32,
    train_images=500,
    model_options={"width": 8},
)
SPACE = Space(
    (
        Knob("lr", 0.001, 1.0, log=True),
        Knob("momentum", 0.5, 0.99),
        Knob("weight_decay", 1e-6, 1e-2, log=True),
        Knob("sparsity", 0.8, 0.98),
    )
)


def problem(kind: str, seed: int) -> tuple[list[list[float]], list[list[float]], float]:
    """Costs and losses by layer and choice, and the budget."""
    chance = random.Random(seed)
    sizes = [chance.choice((1, 2, 4, 8, 16, 32)) for _ in range(LAYERS)]
    if kind == "rounding":
        weights = [chance.lognormvariate(0, 1.5) for _ in range(LAYERS)]
        losses = [
            [w * 4.0**-bits * chance.lognormvariate(0, 0.5) for bits in BITS]
            for w in weights
        ]
    else:
        losses = [sorted(chance.random() for _ in BITS) for _ in range(LAYERS)]
    costs = [[float(size * bits) for bits in BITS] for size in sizes]
    return costs, losses, MEAN_BITS * sum(sizes)


def lagrangian(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float
) -> float:
    """Least loss within the budget of ``argmin loss + price·cost`` over all prices."""
    cost, loss = np.array(costs), np.array(losses)
    best = math.inf
    # Prices at which a layer changes its mind are slopes between two of its choices.
    slopes = {0.0}
    for c, w in zip(cost, loss, strict=True):
        for i in range(len(c)):
            slopes |= {
                (w[j] - w[i]) / (c[i] - c[j]) for j in range(len(c)) if c[i] > c[j]
            }
    ordered = sorted(slope for slope in slopes if slope >= 0)
    between = [(a + b) / 2 for a, b in pairwise(ordered)]
    for price in [*ordered, *between, ordered[-1] * 2 + 1]:
        chosen = (loss + price * cost).argmin(1)
        rows = np.arange(len(cost))
        if cost[rows, chosen].sum() <= budget:
            best = min(best, float(loss[rows, chosen].sum()))
    return best


def brute_force(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float
) -> float:
    """Least loss of all assignments."""
    cost, loss = np.zeros(1), np.zeros(1)
    for c, w in zip(costs, losses, strict=True):
        cost = (cost[:, None] + np.array(c)).ravel()
        loss = (loss[:, None] + np.array(w)).ravel()
    return float(loss[cost <= budget].min())


def known(kind: str, problems: int, trials: int) -> dict[str, Any]:
    """Loss of each method's best feasible point over the optimum, by problem."""
    ratios: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}

    def note(method: str, value: float, best: float, began: float) -> None:
        ratios.setdefault(method, []).append(value / best)
        seconds.setdefault(method, []).append(time.process_time() - began)

    for seed in range(problems):
        costs, losses, budget = problem(kind, seed)
        began = time.process_time()
        chosen = knapsack(costs, losses, budget)
        best = math.fsum(row[k] for row, k in zip(losses, chosen, strict=True))
        note("knapsack", best, best, began)
        if not seed:
            everything = brute_force(costs, losses, budget)
            assert math.isclose(best, everything), (best, everything)
        began = time.process_time()
        note("lagrangian", lagrangian(costs, losses, budget), best, began)
        space = Space(
            tuple(Choice(f"layer{i}", tuple(map(str, BITS))) for i in range(LAYERS))
        )

        def judge(
            points: Sequence[Point],
            costs: list[list[float]] = costs,
            losses: list[list[float]] = losses,
            budget: float = budget,
        ) -> list[tuple[tuple[float], float]]:
            found = []
            for point in points:
                at = [BITS.index(int(bits)) for bits in point.values()]
                paid = math.fsum(row[k] for row, k in zip(costs, at, strict=True))
                lost = math.fsum(row[k] for row, k in zip(losses, at, strict=True))
                found.append(((lost,), paid - budget))
            return found

        for method in SAMPLERS:
            began = time.process_time()
            tried = sampled(space, judge, method=method, count=trials, seed=seed)
            value = min((j.losses[0] for j in tried if j.is_feasible), default=math.inf)
            note(method, value, best, began)
        print(f"{kind}: problem {seed + 1} of {problems}", flush=True)
    rows = [
        {
            "losses": kind,
            "method": method,
            "median": statistics.median(found),
            "least": min(found),
            "most": max(found),
            "seconds": statistics.median(seconds[method]),
        }
        for method, found in ratios.items()
    ]
    return {"trials": trials, "ratios": ratios, "seconds": seconds, "rows": rows}


def tested(trial: Trial) -> list[float]:
    """Test accuracy of a candidate trained on all training images, by seed."""
    data = trial.workload.load_dataset()
    steps = trial.epochs * trial.workload.steps_per_epoch(data)
    assert isinstance(trial.recipe, str)
    recipe = make_recipe(trial.recipe, steps=steps)
    return [
        train(trial.workload, recipe, data, RunPlan(seed=seed)).history[-1].score
        for seed in FINAL_SEEDS
    ]


def trained(seeds: int, full: float) -> dict[str, Any]:
    """What each method chose within so many whole trainings, by seed of the search."""
    template = Template(workload=WORKLOAD, recipe="swat:sparsity={sparsity}")
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, pool(1) as here:
        for seed in range(seeds):
            for method in methods():
                store = Trials(Path(folder) / f"{method}-{seed}")
                found = by_training(
                    SPACE,
                    template,
                    store,
                    here,
                    method=method,
                    seed=seed,
                    slots=2,
                    full_trainings=full,
                )
                best, spent = found.best, store.spent()
                assert best is not None
                scores = tested(best.trial)
                runs.append(
                    {
                        "method": method,
                        "seed": seed,
                        "held_out": best.score,
                        "test": scores,
                        "point": dict(best.point),
                        "macs_ratio": best.cost,
                        "candidates": len({row.trial.key for row in found.rows}),
                        "full_trainings": found.full_trainings,
                        "processor_seconds": spent.processor_seconds,
                        "done_macs": spent.done_macs,
                        "summary": found.summary(),
                    }
                )
                print(f"{method} {seed}: {statistics.fmean(scores):.3f}", flush=True)
    rows = []
    for method in methods():
        of = [run for run in runs if run["method"] == method]
        means = [statistics.fmean(run["test"]) for run in of]
        rows.append(
            {
                "method": method,
                "candidates": statistics.fmean(run["candidates"] for run in of),
                "full trainings": statistics.fmean(run["full_trainings"] for run in of),
                "held-out": statistics.fmean(run["held_out"] for run in of),
                "test mean": statistics.fmean(means),
                "test least": min(means),
                "processor seconds": statistics.fmean(
                    run["processor_seconds"] for run in of
                ),
            }
        )
    return {"full_trainings": full, "runs": runs, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("known", "trained"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--trials", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--full", type=float, default=8.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = [os.getloadavg()[0]]
    if given.what == "known":
        parts = {k: known(k, given.problems, given.trials) for k in KINDS}
        found = {**parts, "rows": [row for p in parts.values() for row in p["rows"]]}
    else:
        found = trained(given.seeds, given.full)
    load.append(os.getloadavg()[0])
    about = {"machine": machine(), "load": load, "workload": WORKLOAD.to_dict()}
    if given.out:
        write_json(given.out, about | found)
    print(rows_as_text(found["rows"]))


if __name__ == "__main__":
    main()
