"""Searched recipes beside uniform ones of equal cost, trained at several seeds.

ResNet-20 on photo patches. Sparsities of SWAT and RigL under a budget of training
multiply-accumulates, bits of weights under a budget of their mean, and whether a budget of
seconds is met where leaving out work is faster. The search
reads training examples only; the final runs of both recipes train on all of them, from other
initial weights at each seed, and are judged by the test examples.

    python benchmarks/search.py --out records/2026-11-30-search
    python benchmarks/search.py --out DIR knapsack
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elision.common.files import write_json
from elision.engines.bench import machine
from elision.layers.recipe import Recipe
from elision.study.search import SearchConfig, knapsack, searched
from elision.study.search.choices import layer_space
from elision.study.search.costs import cost_named
from elision.study.search.seconds import seconds_of_step
from elision.study.search.subject import subject_of
from elision.training.loop import RunPlan, train
from elision.workloads import Workload

SEEDS = (0, 1, 2)

#: A short training: 90 steps, about 20 seconds of one core.
WORKLOAD = Workload(
    name="photo-resnet20",
    dataset="photo-patches",
    model="resnet20",
    learning_rate=0.05,
    epochs=3,
    batch_size=32,
    train_images=960,
    test_images=500,
)

SWAT = tuple(f"swat:sparsity={s}" for s in (0.8, 0.9, 0.95, 0.97, 0.98, 0.99))
RIGL = tuple(f"rigl:sparsity={s}" for s in (0.8, 0.9, 0.95, 0.97, 0.98, 0.99))
BITS = tuple(f"weight=int{bits}" for bits in (2, 3, 4, 6, 8))


@dataclass(frozen=True)
class Question:
    """What is searched for, and the uniform choice that it stands beside."""

    cost: str
    uniform: str
    choices: dict[str, tuple[str, ...]]
    sensitivities: tuple[str, ...]


QUESTIONS = {
    # SWAT leaves the first layer dense, and so do both recipes here.
    "sparsity": Question(
        "macs", "swat:sparsity=0.95", {"*": ("dense", *SWAT)}, ("fisher",)
    ),
    # Where a uniform sparsity hurts more.
    "high-sparsity": Question(
        "macs", "swat:sparsity=0.98", {"*": ("dense", *SWAT)}, ("fisher",)
    ),
    # Masks that move; RigL, too, leaves the first layer dense.
    "moving-masks": Question(
        "macs", "rigl:sparsity=0.95", {"*": ("dense", *RIGL)}, ("fisher",)
    ),
    "bits": Question("weight-bits", "weight=int3", {"*": BITS}, ("fisher",)),
}

#: Networks and budgets of seconds, shares of a dense step; leaving out work is faster on both.
TIMED = {"seconds-resnet20": ("resnet20", 0.8), "seconds-vgg16": ("vgg16", 0.6)}


def trained(recipe: Recipe, seed: int, path: Path) -> dict[str, Any]:
    """One run on all training examples, judged by the test; read if it is there."""
    if path.is_file():
        return json.loads(path.read_text())
    started = time.process_time()
    found = train(
        WORKLOAD, recipe, WORKLOAD.load_dataset(), RunPlan(seed=seed, meter_every=8)
    )
    row = {
        "recipe": recipe.name,
        "seed": seed,
        "accuracy": found.history[-1].score,
        "macs_ratio": found.meter.total().ratio,
        "processor_seconds": time.process_time() - started,
        "load": os.getloadavg()[0],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, row)
    print(path.stem, row, flush=True)
    return row


def answer(name: str, question: Question, out: Path) -> dict[str, Any]:
    """Search once, then train the answer and the uniform recipe at every seed."""
    data = WORKLOAD.load_dataset()
    steps = WORKLOAD.epochs * WORKLOAD.steps_per_epoch(data)
    space = layer_space(WORKLOAD.make_model(data), question.choices, steps=steps)
    uniform = space.uniform(question.uniform)
    subject = subject_of(WORKLOAD, WORKLOAD.make_model(data), data.held_out(0.2), 32)
    costs = cost_named(question.cost).of(subject, space)
    config = SearchConfig(
        workload=WORKLOAD,
        choices=question.choices,
        cost=question.cost,
        limit=costs.predicted(uniform),
        sensitivities=question.sensitivities,
        seed=SEEDS[0],
    )
    found = searched(
        config, out / f"search-{name}", progress=lambda *at: print(*at, flush=True)
    )
    print(found, flush=True)
    recipes = {"uniform": space.recipe(uniform, "uniform"), "searched": found.recipe}
    runs = {
        arm: [
            trained(recipe, seed, out / "runs" / f"{name}-{arm}-{seed}.json")
            for seed in SEEDS
        ]
        for arm, recipe in recipes.items()
    }
    scores = {arm: [row["accuracy"] for row in rows] for arm, rows in runs.items()}
    gains = [s - u for s, u in zip(scores["searched"], scores["uniform"], strict=True)]
    error = statistics.stdev(gains) / len(gains) ** 0.5
    return {
        "question": name,
        "uniform": question.uniform,
        "cost": {
            "name": question.cost,
            "unit": costs.unit,
            "uniform": costs.predicted(uniform),
            "searched": found.measured,
            "dense": costs.dense,
        },
        "scores": scores,
        "gain": statistics.mean(gains),
        "standard_error_of_gain": error,
        "gain_in_standard_errors": statistics.mean(gains) / error if error else None,
        "full_trainings_of_search": found.full_trainings,
        "chosen": found.space.rows(found.chosen),
        "correlations": dict(found.correlations),
    }


def measured_budget(name: str, out: Path) -> dict[str, Any]:
    """Search under a budget of seconds, then time the answer beside dense once more.

    The last timings are of new copies of a network that was not trained: the recipe alone
    is carried over. Their number is an own choice.
    """
    model, budget = TIMED[name]
    workload = replace(WORKLOAD, name=f"photo-{model}", model=model)
    config = SearchConfig(
        workload=workload,
        choices={"*": ("dense", *SWAT[:3])},
        cost="seconds",
        budget=budget,
        sensitivities=("fisher",),
        engine="native",
        examples=workload.batch_size,
        seed=SEEDS[0],
    )
    found = searched(
        config, out / f"search-{name}", progress=lambda *at: print(*at, flush=True)
    )
    print(found, flush=True)
    data = workload.load_dataset().held_out(config.held_out)
    subject = subject_of(workload, workload.make_model(data), data, config.examples)
    again = [seconds_of_step(subject, found.recipe, config.engine)[1] for _ in range(5)]
    return {
        "workload": workload.to_dict(),
        "engine": config.engine,
        "unit": found.costs.unit,
        "dense_seconds": found.costs.dense,
        "budget_of_dense": budget,
        "predicted_of_dense": found.predicted / found.costs.dense,
        "whole_of_dense": found.measured / found.costs.dense,
        "timed_again_of_dense": again,
        "median_timed_again_over_budget": statistics.median(again) / budget,
        "least_of_dense": (found.costs.fixed + sum(map(min, found.costs.values)))
        / found.costs.dense,
        "accuracy_held_out": {
            "dense": found.reference.score,
            "searched": found.verified.score,
        },
        "full_trainings_of_search": found.full_trainings,
        "chosen": found.space.rows(found.chosen),
    }


def drawn_instances(count: int = 1000) -> dict[str, Any]:
    """Knapsacks of at most 12 layers x 4 choices against brute force; one of 200 x 12."""
    chance = np.random.default_rng(0)
    equal, seconds = 0, 0.0
    for _ in range(count):
        sizes = chance.integers(1, 5, chance.integers(1, 13))
        costs = [chance.random(n) * chance.integers(1, 100) for n in sizes]
        losses = [chance.normal(size=n) for n in sizes]
        least, most = (sum(f(c) for c in costs) for f in (np.min, np.max))
        budget = least + (most - least) * chance.random()
        started = time.process_time()
        chosen = knapsack(costs, losses, budget)
        seconds += time.process_time() - started
        lost = 0.0
        for row, index in zip(losses, chosen, strict=True):
            lost += row[index]
        equal += lost == _brute_force(costs, losses, budget)
    costs, losses = chance.random((200, 12)), chance.random((200, 12))
    times = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        low, high = costs.min(1).sum(), costs.max(1).sum()
        started = time.process_time()
        knapsack(costs.tolist(), losses.tolist(), low + share * (high - low))
        times.append(time.process_time() - started)
    return {
        "instances": count,
        "equal_to_brute_force": int(equal),
        "processor_seconds_of_all": seconds,
        "processor_seconds_of_200_layers_12_choices": times,
    }


def _brute_force(costs: list[Any], losses: list[Any], budget: float) -> float:
    """The least loss of all combinations, sums in the order of the layers."""
    cost, loss = np.zeros(1), np.zeros(1)
    for c, lost in zip(costs, losses, strict=True):
        cost = (cost[:, None] + c).ravel()
        loss = (loss[:, None] + lost).ravel()
    return float(loss[cost <= budget * (1 + 1e-9)].min())


def main() -> None:
    """Answer the questions named, all by default, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["knapsack", *QUESTIONS, *TIMED])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.what:
        load = os.getloadavg()[0]
        found = (
            drawn_instances()
            if name == "knapsack"
            else measured_budget(name, given.out)
            if name in TIMED
            else answer(name, QUESTIONS[name], given.out)
        )
        found |= {"machine": machine(), "load_at_start": load}
        given.out.mkdir(parents=True, exist_ok=True)
        write_json(given.out / f"{name}.json", found)
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
