"""Quantised training from a float model: BCGD against rho = 0 and its relatives.

    python benchmarks/bcgd.py digits-cnn --seeds 5 --epochs 12 --out bcgd.json
    python benchmarks/bcgd.py photo-resnet8 --seeds 3 --epochs 2 --out bcgd.json

For each seed one float network is trained, then every arm goes on from a copy of it, on
the same batches. The published run has 200 epochs of 391 steps, over which rho = 1e-5 adds
up to 0.78; ``rho=0.78/steps`` is the same sum in a short run. Every arm's test accuracy is
that of the quantised network. ``two-layer`` is the paper's network of two linear layers
with binary activations and Gaussian input: angle to the teacher and correlation of the
coarse with the true gradient, step by step.
"""

import argparse
import copy
import math
import platform
import statistics
import time
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from elision.common.files import write_json
from elision.layers.recipe import Recipe, Table
from elision.methods import make_recipe
from elision.operands import LearnedStep
from elision.products import Product
from elision.topology import ScheduleWarning
from elision.workloads import find_workload

#: Sum of rho over the published run: 200 epochs of 391 steps at 1e-5.
PUBLISHED_SUM = 200 * 391 * 1e-5

#: Weight decay and momentum of the published recipe.
WEIGHT_DECAY, MOMENTUM = 1e-4, 0.95


def arms(steps: int) -> dict[str, str]:
    """Recipes by the name of the arm; all leave no layer float but where published."""
    scaled = min(1.0, PUBLISHED_SUM / steps)
    binary = {
        "rho 0": 0.0,
        "rho 1e-5": 1e-5,
        "rho as published in sum": scaled,
        "rho 0.1": 0.1,
    }
    found = {
        f"1w 4a {name}": f"bcgd:rho={rho},rho_cap=1.0,alpha=data"
        for name, rho in binary.items()
    }
    for gradient in ("exact", "pact", "fixed"):
        found[f"1w 4a {gradient}"] = f"bcgd:rho=0.0,alpha=data,gradient={gradient}"
    return found | {
        "1w 4a rounding": "bcgd:rho=0.0,alpha=data,quantiser=round",
        "2w 4a": "bcgd:weight_bits=2,alpha=data",
        "4w 4a": "bcgd:weight_bits=4,alpha=data",
        "1w": "bcgd:activation_bits=32",
        "binary-connect 1w": "binary-connect",
        "bwn 1w": "bwn",
        "twn 2w": "twn",
        "dorefa 1w 2a 6g": "dorefa",
        "dorefa 1w 4a": "dorefa:activation_bits=4,gradient_bits=32",
        "pact 4w 4a": "pact:alpha=data",
        "lsq 4w 4a": "lsq",
        "lsq 2w 4a": "lsq:weight_bits=2",
    }


def batches(images: Tensor, labels: Tensor, size: int, seed: int) -> Iterator[Any]:
    """Batches of one epoch, in an order given by a seed."""
    order = torch.randperm(
        len(images), generator=torch.Generator().manual_seed(seed)
    ).split(size)
    for index in order:
        if len(index) == size:
            yield images[index], labels[index]


def train(
    model: nn.Module, data: Any, epochs: int, rate: float, size: int, seed: int
) -> None:
    """Momentum descent with a cosine schedule."""
    images, labels = data
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=rate,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
    )
    topology = None
    if any(True for _ in elision.layers.elided_layers(model)):
        topology = elision.topology.attach(model, optimizer)
    steps = epochs * (len(images) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for epoch in range(epochs):
        for x, y in batches(images, labels, size, 1000 * seed + epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    if topology is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScheduleWarning)
            topology.detach()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images that a model in evaluation mode gets right."""
    model.eval()
    parts = zip(images.split(250), labels.split(250), strict=True)
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
    return right / len(images)


def compare(
    name: str, seeds: int, epochs: int, rate: float, only: str
) -> dict[str, Any]:
    """Accuracy of every arm and seed."""
    workload = find_workload(name)
    dataset = workload.load_dataset(None)
    train_set = (dataset.normalise(dataset.train_images), dataset.train_labels)
    test_set = (dataset.normalise(dataset.test_images), dataset.test_labels)
    size = workload.batch_size
    steps = epochs * (len(train_set[0]) // size)
    recipes = {arm: r for arm, r in arms(steps).items() if fnmatchcase(arm, only)}
    scores: dict[str, list[float]] = {
        arm: [] for arm in ("float", "float on", *recipes)
    }
    for seed in range(seeds):
        torch.manual_seed(seed)
        trained = workload.make_model(dataset)
        train(trained, train_set, epochs, workload.learning_rate, size, seed)
        scores["float"].append(accuracy(trained, *test_set))
        for arm in ("float on", *recipes):
            model = copy.deepcopy(trained)
            if arm in recipes:
                elision.elide(model, make_recipe(recipes[arm]), engine="torch")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                train(model, train_set, epochs, rate, size, seed + 100)
            scores[arm].append(accuracy(model, *test_set))
            print(f"{name} seed {seed} {arm:<28} {scores[arm][-1]:.4f}", flush=True)
    rows = {
        arm: {
            "recipe": recipes.get(arm, "dense"),
            "test_accuracy": values,
            "mean": statistics.mean(values),
            "spread": statistics.stdev(values) if len(values) > 1 else 0.0,
        }
        for arm, values in scores.items()
    }
    against = scores["1w 4a rho 0"]
    for arm in recipes:
        pairs = zip(scores[arm], against, strict=True)
        rows[arm]["minus_rho_0"] = [a - b for a, b in pairs]
    return {
        "workload": name,
        "steps": steps,
        "batch": size,
        "rate": rate,
        "seeds": seeds,
        "arms": rows,
    }


def two_layer(seed: int, steps: int = 200, rate: float = 0.1) -> dict[str, Any]:
    """Coarse gradient descent on ``v·s(Z w)`` with a teacher, ``s(x) = 1[x > 0]``.

    ``Z: (batch, m, n)`` Gaussian, ``w: (n,)`` learned at unit length, ``v: (m,)`` learned.
    The gradient of the expected loss in ``w`` is ``−v·v*/(2π‖w‖)`` times the unit vector
    from ``w`` to ``w*`` across ``w``.
    """
    rows, columns, batch = 8, 16, 2000
    generator = torch.Generator().manual_seed(seed)
    teacher = [torch.randn(k, generator=generator) for k in (columns, rows)]
    goal = teacher[0] / teacher[0].norm()
    first, last = nn.Linear(columns, 1, bias=False), nn.Linear(rows, 1, bias=False)
    with torch.no_grad():
        start = torch.randn(columns, generator=generator)
        first.weight.copy_((start / start.norm())[None])
        # From the other side, and from a larger sum, w goes to another critical point.
        v = 0.1 * torch.randn(rows, generator=generator)
        last.weight.copy_((v * torch.sign(v @ teacher[1]))[None])
    step = LearnedStep(1, "ceil", "fixed", initial=1.0)
    row = {"input": step}
    table = Table({Product.FORWARD: row, Product.WEIGHT_GRAD: row})
    elision.elide(last, Recipe("binary activation", table), engine="torch")
    angles, correlations, losses = [], [], []
    for _ in range(steps):
        z = torch.randn(batch, rows, columns, generator=generator)
        wanted = (z @ goal > 0).float() @ teacher[1]
        for layer in (first, last):
            layer.weight.grad = None
        loss = 0.5 * ((last(first(z)[..., 0])[:, 0] - wanted) ** 2).mean()
        loss.backward()
        assert first.weight.grad is not None
        assert last.weight.grad is not None
        w, coarse = first.weight.detach()[0], first.weight.grad[0]
        across = goal - (goal @ w) * w / (w @ w)
        agreement = last.weight.detach()[0] @ teacher[1]
        true = -agreement / (2 * math.pi * w.norm()) * across / across.norm()
        cosine = torch.clamp((w @ goal) / w.norm(), -1, 1)
        angles.append(math.acos(float(cosine)))
        correlations.append(float(coarse @ true / (coarse.norm() * true.norm())))
        losses.append(float(loss.detach()))
        with torch.no_grad():
            first.weight -= rate * coarse
            first.weight /= first.weight.norm()
            last.weight -= rate * last.weight.grad
    return {"seed": seed, "angle": angles, "correlation": correlations, "loss": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=["digits-cnn"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument(
        "--only", default="*", help="pattern of the arms, rho 0 included"
    )
    parser.add_argument("--out", type=Path, default=Path("bcgd.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "two_layer": [two_layer(seed) for seed in range(given.seeds)],
        "workloads": [
            compare(name, given.seeds, given.epochs, given.rate, given.only)
            for name in given.workloads
        ],
    }
    result["processor_seconds"] = time.process_time() - start
    write_json(given.out, result)
    for found in result["workloads"]:
        print(f"\n{found['workload']}: {found['steps']} steps, {found['seeds']} seeds")
        for arm, row in found["arms"].items():
            difference = statistics.mean(row.get("minus_rho_0", [0.0]))
            print(
                f"  {arm:<28} {100 * row['mean']:6.2f} ± {100 * row['spread']:.2f}  "
                f"against rho 0: {100 * difference:+.2f}"
            )


if __name__ == "__main__":
    main()
