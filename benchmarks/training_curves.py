"""Training on real data: the native kernels beside the masked oracle.

    python benchmarks/training_curves.py --out curves.json

A ResNet-8 on scikit-learn's 8x8 digits, by SGD with momentum, at several seeds. Both
engines start from the same weights and see the same batches. Their losses are equal but
for rounding in the first steps; later, rounding turns near ties of thresholds and ReLUs,
and what can be asked is that engines differ less than seeds do.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from elision.common.files import write_json
from elision.engines.bench import machine
from elision.layers import elide
from elision.methods import RigL, Swat
from elision.topology import attach
from elision.workloads import Workload

ENGINES = {"masked": "torch", "native": "native"}
WORKLOAD = Workload(
    name="digits-resnet8",
    dataset="digits",
    model="resnet8",
    batch_size=96,
    learning_rate=0.05,
    momentum=0.9,
    nesterov=False,
    weight_decay=0.0,
    schedule="constant",
)


def recipe(name: str, sparsity: float, steps: int) -> Any:
    if name == "SWAT":
        return Swat(sparsity=sparsity)
    return RigL(sparsity=sparsity, every=20, until=3 * steps // 4)


def train(args: argparse.Namespace, method: str, engine: str, seed: int) -> dict:
    """One run; its losses and its accuracy on images it has not seen."""
    data, task = WORKLOAD.load_dataset(), WORKLOAD.task
    per_epoch = WORKLOAD.steps_per_epoch(data)
    torch.manual_seed(seed)
    model = WORKLOAD.make_model(data)
    how = recipe(method, args.sparsity, args.epochs * per_epoch)
    elide(model, how, engine=ENGINES[engine])
    optimizer = WORKLOAD.make_optimizer(model)
    attach(model, optimizer)
    losses = []
    for epoch in range(args.epochs):
        for batch in WORKLOAD.train_batches(data, seed=seed, epoch=epoch):
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    accuracy = task.evaluate(model, WORKLOAD.test_batches(data))
    return {"seed": seed, "engine": engine, "losses": losses, "accuracy": accuracy}


def compared(runs: list[dict]) -> dict[str, float]:
    """How far the engines are apart, at the first steps and at the end."""
    pairs = [(a, b) for a in runs for b in runs if a["seed"] == b["seed"]]
    pairs = [(a, b) for a, b in pairs if (a["engine"], b["engine"]) == tuple(ENGINES)]
    last = {id(r): statistics.mean(r["losses"][-15:]) for r in runs}
    first = [
        abs(x - y) / x
        for a, b in pairs
        for x, y in zip(a["losses"][:4], b["losses"][:4], strict=True)
    ]
    between = [last[id(b)] - last[id(a)] for a, b in pairs]
    masked = [last[id(a)] for a, _ in pairs]
    return {
        "largest relative difference of the first 4 losses": max(first),
        "mean difference of the last losses": statistics.mean(between),
        "deviation of the last losses over seeds": statistics.stdev(masked),
        "mean difference of accuracy": statistics.mean(
            b["accuracy"] - a["accuracy"] for a, b in pairs
        ),
        "deviation of accuracy over seeds": statistics.stdev(
            a["accuracy"] for a, _ in pairs
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--method", nargs="+", default=["SWAT", "RigL"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "sparsity": args.sparsity}
    for method in args.method:
        runs = [
            train(args, method, engine, seed)
            for seed in range(args.seeds)
            for engine in ENGINES
        ]
        for run in runs:
            losses = run["losses"]
            print(
                f"{method} seed {run['seed']} {run['engine']:7s} first losses "
                + " ".join(f"{v:.6f}" for v in losses[:4])
                + f"  last {statistics.mean(losses[-15:]):.4f}"
                + f"  test accuracy {run['accuracy']:.4f}"
            )
        result[method] = {"runs": runs, "compared": compared(runs)}
        for what, value in result[method]["compared"].items():
            print(f"  {what}: {value:.2g}")
    if args.out is not None:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
